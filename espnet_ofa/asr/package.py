"""A packed recogniser that ESPnet itself loads is compared with its checksums too.

``Speech2Text.from_pretrained`` and espnet_model_zoo compare nothing. But they build the
model before they read its weights, and so they get here. espnet_model_zoo up to 0.1.7,
and any version that unpacks a zip, has by then rewritten the config in the package:
sorted, with absolute paths. That is undone before it is compared.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from espnet_ofa.asr.building import checkpoint_to_load
from espnet_ofa.checksums import (
    CHECKSUMS_NAME,
    NotAsPublished,
    read_checksums,
    sha256,
    verify,
)

META_NAME = "meta.yaml"
CONFIG_NAME = "config.yaml"


def config_text(config: dict[str, Any]) -> str:
    """A packed config as text; the same for every copy that has the same content."""
    return yaml.safe_dump(config, sort_keys=True, allow_unicode=True)


def check_package() -> None:
    """Compare what ``build_model_from_file`` is loading, if it lies in a package.

    Looked at is what is used: the folder with config and checkpoint.

    Raises:
        NotAsPublished: something is missing, truncated or altered; names each file.
        ValueError: ``checksums.json`` is none.
    """
    checkpoint = checkpoint_to_load()
    if checkpoint is None:
        return
    home = checkpoint.absolute().parent
    root = home.parent
    if not ((root / META_NAME).is_file() and (root / CHECKSUMS_NAME).is_file()):
        return
    listed = read_checksums(root)
    used = [name for name in listed if name.startswith(f"{home.name}/")]
    config = f"{home.name}/{CONFIG_NAME}"
    verify(root, [META_NAME, *(name for name in used if name != config)])
    if config in used and not _is_config(root, config, listed[config][1]):
        found = f"{config}: expected sha256 {listed[config][1]}, found something else"
        raise NotAsPublished(root, [found], ())


def _is_config(root: Path, name: str, digest: str) -> bool:
    """Whether a config is the one published, or the same with paths below ``root``."""
    path = root / name
    if not path.is_file():
        return False
    if sha256(path) == digest:
        return True
    content = _relative(yaml.safe_load(path.read_text(encoding="utf-8")), f"{root}/")
    return hashlib.sha256(config_text(content).encode()).hexdigest() == digest


def _relative(value: Any, root: str) -> Any:
    if isinstance(value, dict):
        return {k: _relative(v, root) for k, v in value.items()}
    if isinstance(value, list):
        return [_relative(v, root) for v in value]
    return value.removeprefix(root) if isinstance(value, str) else value
