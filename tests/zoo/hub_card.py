"""The hub's checks on the metadata of a model card, as it documents them.

From the hub's documentation: "When present, and only then, 'model-index', 'datasets'
and 'license' contents will be verified"; licences are those of its list, languages ISO
639 codes, datasets ids. The client's own parser checks ``model-index``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from huggingface_hub.repocard_data import model_index_to_eval_results

from espnet_ofa.zoo.licenses import LICENSES

# Those of the hub's tasks that a speech model can be of.
TASKS = {
    "audio-classification",
    "automatic-speech-recognition",
    "feature-extraction",
    "voice-activity-detection",
}
DATASET = re.compile(r"(?:[\w-]+/)?[\w.-]+")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[\w-]+)?|code|multilingual")
TEXTS = ("library_name", "pipeline_tag", "license", "language", "datasets")
LISTS = ("language", "datasets", "tags", "metrics")


def card_errors(card: Any) -> Iterator[str]:
    """What the hub would not accept of a card's metadata, in its own words."""
    if not isinstance(card, dict):
        yield "the metadata must be a mapping"
        return
    for name in {*TEXTS, *LISTS} & card.keys():
        value = card[name]
        if isinstance(value, list) and name in LISTS:
            parts = {f"{name}[{i}]": part for i, part in enumerate(value)}
        elif name in TEXTS:
            parts = {name: value}
        else:
            yield f'"{name}" must be an array'
            continue
        for place, part in parts.items():
            if name == "license" and (
                not isinstance(part, str) or part not in LICENSES
            ):
                yield f'"license" must be one of {sorted(LICENSES)}'
            elif not isinstance(part, str):
                yield f'"{place}" must be a string'
            elif name == "datasets" and not DATASET.fullmatch(part):
                yield f'"{place}" with value "{part}" is not valid: use a dataset id'
            elif name == "language" and not LANGUAGE.fullmatch(part):
                yield f'"{place}" with value "{part}" is not valid: an ISO 639 code'
            elif name == "pipeline_tag" and part not in TASKS:
                yield f'"pipeline_tag" must be one of {sorted(TASKS)}'
    if "model-index" in card:
        yield from index_errors(card["model-index"])


def index_errors(index: Any) -> Iterator[str]:
    """What the hub would not accept of ``model-index``."""
    try:
        name, results = model_index_to_eval_results(index)
    except (KeyError, TypeError, ValueError) as e:
        yield f'"model-index" is not valid: {type(e).__name__} {e}'
        return
    if not isinstance(name, str):
        yield '"model-index[0].name" must be a string'
    for result in results:
        if result.task_type not in TASKS:
            yield f'"task.type" with value "{result.task_type}" is not a task'
        if not isinstance(result.dataset_type, str) or not DATASET.fullmatch(
            result.dataset_type
        ):
            yield f'"dataset.type" with value "{result.dataset_type}" is not valid'
        texts = (result.dataset_name, result.metric_type, result.metric_name or "")
        if not all(isinstance(text, str) for text in texts):
            yield f"names must be strings: {texts}"
        if not isinstance(result.metric_value, (int, float, str)):
            yield f'"value" must be a number or a string: {result.metric_value}'
