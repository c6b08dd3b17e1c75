"""ESPnet's ASR task, which stops where a loss is not finite."""

from __future__ import annotations

from espnet2.tasks.asr import ASRTask

from espnet_ofa.plugin import register
from espnet_ofa.tasks.trainer import FiniteTrainer

register()  # here, because spawned processes import this module without calling main


class OFAASRTask(ASRTask):
    """``espnet2.tasks.asr`` with our trainer; models load with either."""

    trainer = FiniteTrainer
