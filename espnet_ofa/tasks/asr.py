"""ESPnet's ASR task, which stops at audio of a wrong rate and at losses not finite."""

from __future__ import annotations

from espnet2.tasks.asr import ASRTask

from espnet_ofa.plugin import register
from espnet_ofa.tasks.audio import AudioTask
from espnet_ofa.tasks.trainer import FiniteTrainer

register()  # here, because spawned processes import this module without calling main


class OFAASRTask(AudioTask, ASRTask):
    """``espnet2.tasks.asr`` with our trainer; models load with either."""

    trainer = FiniteTrainer
