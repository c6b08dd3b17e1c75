"""Tasks that look at the sampling rate of their audio, which ESPnet's loader drops."""

from __future__ import annotations

import argparse

from espnet2.tasks.abs_task import AbsTask

from espnet_ofa.upstream.audio import check_sounds
from espnet_ofa.upstream.extractor import frontend_rate


class AudioTask(AbsTask):
    """A task whose training, and collecting of statistics, starts with that look."""

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """As ESPnet's.

        Raises:
            FileNotFoundError, ValueError: audio of another rate than ``frontend_conf:
                fs`` (16 kHz by default), or none, by file name.
        """
        rate = frontend_rate(getattr(args, "frontend_conf", None))
        for which in ("train", "valid"):
            data = getattr(args, f"{which}_data_path_and_name_and_type")
            check_sounds(data or (), rate)
        super().main_worker(args)
