"""What the card tells of results: those of the packed checkpoint, and no others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from espnet_ofa.checksums import sha256
from espnet_ofa.report.tradeoff import Row, collect_rows, find_decode_dirs
from espnet_ofa.zoo.portable import hide_folders

logger = logging.getLogger(__name__)


def own_rows(
    exp_dir: Path,
    checkpoint: Path,
    decode_dirs: Sequence[str | Path] | None = None,
    references: Mapping[str, str] | None = None,
) -> list[Row]:
    """Results of one checkpoint, without the paths of where it was decoded.

    Args:
        exp_dir: folder of the training.
        checkpoint: results that were decoded with this very content are its own.
        decode_dirs: where to look; by default everywhere below ``exp_dir``.
        references: test set -> Kaldi text file, where it is not where it was.

    Raises:
        FileNotFoundError, ValueError: see
            :func:`espnet_ofa.report.tradeoff.collect_rows`.
    """
    if decode_dirs is None:
        try:
            decode_dirs = find_decode_dirs(exp_dir)
        except FileNotFoundError:
            return []
    own = sha256(checkpoint)
    rows = []
    for folder in map(Path, decode_dirs):
        for row in collect_rows(folder.name, folder, references):
            setup = dict(row.stats.setup)
            model = setup.pop("model", "an unnamed model")
            if row.stats.model_sha256 != own:
                logger.warning(
                    f"{folder}: results of {model} with {_sum(row.stats.model_sha256)},"
                    f" not of {checkpoint} with {_sum(own)}; left out of the card. "
                    "Remove that folder and decode again (stage 13) to have them on it"
                )
                continue
            setup = {
                k: hide_folders(v) if isinstance(v, str) else v
                for k, v in setup.items()
            }
            rows.append(replace(row, stats=replace(row.stats, setup=setup)))
    return rows


def _sum(found: str | None) -> str:
    return "no checksum" if found is None else f"sha256 {found[:12]}"
