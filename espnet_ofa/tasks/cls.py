"""ESPnet's classification task with one more model."""

from __future__ import annotations

from argparse import Namespace

from espnet2.cls.espnet_model import ESPnetClassificationModel
from espnet2.tasks.cls import CLSTask
from espnet2.train.abs_espnet_model import AbsESPnetModel
from espnet2.train.class_choices import ClassChoices

from espnet_ofa.asr.cls_model import OFAClassificationModel
from espnet_ofa.plugin import register
from espnet_ofa.tasks.audio import AudioTask
from espnet_ofa.tasks.trainer import FiniteTrainer

register()  # here, because spawned processes import this module without calling main

model_choices = ClassChoices(
    "model",
    classes={"espnet": ESPnetClassificationModel, "ofa": OFAClassificationModel},
    type_check=AbsESPnetModel,
    default="espnet",
)


class OFACLSTask(AudioTask, CLSTask):
    """``espnet2.tasks.cls`` that knows ``model: ofa``, with our trainer.

    ESPnet's task has a table of models and builds its own whatever is chosen there.
    Models trained here load with ESPnet's task: nothing is saved but weights.
    """

    trainer = FiniteTrainer
    class_choices_list = [
        model_choices if choices.name == "model" else choices
        for choices in CLSTask.class_choices_list
    ]

    @classmethod
    def build_model(cls, args: Namespace) -> ESPnetClassificationModel:
        """As ESPnet's; with ``model: ofa`` the same parts in our model."""
        model = super().build_model(args)
        if args.model != "ofa":
            return model
        parts = ("frontend", "specaug", "normalize", "preencoder", "encoder", "decoder")
        return OFAClassificationModel(
            vocab_size=model.vocab_size,
            token_list=model.token_list,
            **{name: getattr(model, name) for name in parts},
            **args.model_conf,
        )
