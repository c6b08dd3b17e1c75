"""Tasks that look at the sampling rate of their audio, which ESPnet's loader drops."""

from __future__ import annotations

import argparse

from espnet2.tasks.abs_task import AbsTask

from espnet_ofa.asr.building import parse_rate
from espnet_ofa.upstream.audio import check_table


class AudioTask(AbsTask):
    """A task whose training, and collecting of statistics, starts with that look."""

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """As ESPnet's.

        Raises:
            FileNotFoundError, ValueError: audio of another rate than ``frontend_conf:
                fs`` (16 kHz by default), or none, by file name.
        """
        conf = getattr(args, "frontend_conf", None) or {}
        for which in ("train", "valid"):
            data = getattr(args, f"{which}_data_path_and_name_and_type")
            for path, _, kind in data or ():
                if kind == "sound":
                    check_table(path, parse_rate(conf.get("fs") or 16000))
        super().main_worker(args)
