"""Parts of ESPnet that fetch a model of their own whenever they are built.

A checkpoint has all of their weights, but they cannot be built without the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Choices of ESPnet 202511 and 202611, by role. BEATs reads a file, which is packed.
FETCHING = {
    "frontend": {"s3prl", "espnet_ssl", "whisper", "huggingface", "fused"},
    "encoder": {"wav2vec2", "hubert", "avhubert", "whisper"},
    "postencoder": {"hugging_face_transformers"},
    "decoder": {"hugging_face_transformers", "whisper"},
    "token_type": {"hugging_face", "qwen2audio"},
}


def find_fetches(config: Mapping[str, Any]) -> list[str]:
    """What of a recogniser's config fetches something, such as ``frontend: s3prl``."""
    found = {role: config.get(role) for role in FETCHING}
    return [
        f"{role}: {choice}"
        for role, choice in found.items()
        if isinstance(choice, str)
        and choice in FETCHING[role]
        and (choice != "fused" or "s3prl" in _fused(config))
    ]


def _fused(config: Mapping[str, Any]) -> list[object]:
    """Kinds of the frontends that ``frontend: fused`` puts side by side."""
    conf = config.get("frontend_conf")
    parts = conf.get("frontends") if isinstance(conf, Mapping) else None
    return [
        part.get("frontend_type")
        for part in (parts if isinstance(parts, list) else [])
        if isinstance(part, Mapping)
    ]
