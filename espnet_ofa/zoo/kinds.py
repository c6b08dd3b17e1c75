"""Kinds of packed models, by the arguments of the ESPnet class that loads them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What packing and loading must know of an ESPnet task.

    Attributes:
        name: what such a model is called.
        task: module and class of the task.
        config: argument that names the config.
        model: argument that names the checkpoint.
        stage: of a recipe, that packs it.
        configs: arguments that are configs too.
        checkpoints: arguments that are checkpoints too.
        files: arguments that are other files.
    """

    name: str
    task: tuple[str, str]
    config: str
    model: str
    stage: str
    configs: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def load_task(self) -> Any:
        """The task's class; ESPnet takes seconds to import."""
        module, name = self.task
        return getattr(import_module(module), name)


ASR = Kind(
    "recogniser",
    ("espnet2.tasks.asr", "ASRTask"),
    "asr_train_config",
    "asr_model_file",
    "recipe stage 14",
    ("lm_train_config",),
    ("lm_file",),
    ("bpemodel", "ngram_file", "prompt_token_file"),
)
CLS = Kind(
    "classifier",
    ("espnet2.tasks.cls", "CLSTask"),
    "classification_train_config",
    "classification_model_file",
    "stage 7 of cls.sh",
)
