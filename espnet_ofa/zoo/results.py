"""What the card tells of results: those of the package, and no others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from espnet_ofa.report.scoring import Score, Unit
from espnet_ofa.report.stats import DecodeStats
from espnet_ofa.report.tradeoff import Row, collect_rows, find_decode_dirs
from espnet_ofa.zoo.portable import hide_folders

logger = logging.getLogger(__name__)

_LEFT_OUT = "left out of the card"


def own_rows(
    exp_dir: Path,
    checkpoint: Path,
    checksum: str,
    decode_dirs: Sequence[str | Path] | None = None,
    references: Mapping[str, str] | None = None,
    score: Callable[[Path, str], Mapping[Unit, Score]] | None = None,
) -> list[Row]:
    """Results of one checkpoint alone, without the paths of where it was decoded.

    Args:
        exp_dir: folder of the training.
        checkpoint: its name, for messages.
        checksum: results that were decoded with these very weights are its own; see
            :func:`espnet_ofa.report.budget.model_checksum`.
        decode_dirs: where to look; by default everywhere below ``exp_dir``.
        references: test set -> Kaldi text file, where it is not where it was.
        score: see :func:`espnet_ofa.report.tradeoff.collect_rows`.

    Raises:
        FileNotFoundError, ValueError: see
            :func:`espnet_ofa.report.tradeoff.collect_rows`.
    """
    if decode_dirs is None:
        try:
            decode_dirs = find_decode_dirs(exp_dir)
        except FileNotFoundError:
            return []

    def ours(folder: Path, stats: DecodeStats) -> bool:
        if stats.model_sha256 != checksum:
            logger.warning(
                f"{folder}: results of {stats.setup.get('model', 'an unnamed model')} "
                f"with {_sum(stats.model_sha256)}, not of {checkpoint} with "
                f"{_sum(checksum)}; {_LEFT_OUT}. Remove that folder and decode again "
                "(stage 13; of cls.sh 6) to have them on it"
            )
            return False
        if more := [str(stats.setup[k]) for k in stats.setup if k.endswith("_file")]:
            logger.warning(
                f"{folder}: decoded with {', '.join(more)} too, which the package does "
                f"not have, so that nobody could do the same; {_LEFT_OUT}"
            )
            return False
        return True

    rows = []
    for folder in map(Path, decode_dirs):
        for row in collect_rows(folder.name, folder, references, score, ours):
            setup = {
                k: hide_folders(v) if isinstance(v, str) else v
                for k, v in row.stats.setup.items()
                if k not in ("model", "bpemodel")  # the package's own
            }
            rows.append(replace(row, stats=replace(row.stats, setup=setup)))
    return rows


def _sum(found: str | None) -> str:
    return "no checksum" if found is None else f"sha256 {found[:12]}"
