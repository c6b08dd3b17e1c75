"""What the card tells of results: those of the packed checkpoint, and no others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from espnet_ofa.report.tradeoff import Row, collect_rows, find_decode_dirs
from espnet_ofa.zoo.portable import hide_folders

logger = logging.getLogger(__name__)


def own_rows(
    exp_dir: Path,
    checkpoint: str,
    decode_dirs: Sequence[str | Path] | None = None,
    references: Mapping[str, str] | None = None,
) -> list[Row]:
    """Results of one checkpoint, without the paths of where it was decoded.

    A result is its own if it was decoded with a file of that name in a folder of the
    training's name: relative paths and moved recipes leave no more to compare.

    Args:
        exp_dir: folder of the training.
        checkpoint: name of the file in it.
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
    # A link to the folder may have been decoded with, too.
    own = [(path.name, checkpoint) for path in (exp_dir.absolute(), exp_dir.resolve())]
    rows = []
    for folder in map(Path, decode_dirs):
        for row in collect_rows(folder.name, folder, references):
            model = Path(str(row.stats.setup.get("model", "an unnamed model")))
            if (model.parent.name, model.name) not in own:
                logger.warning(
                    f"{folder}: results of {model}, not of {exp_dir / checkpoint}; "
                    "left out of the card"
                )
                continue
            setup = {
                k: hide_folders(v) if isinstance(v, str) else v
                for k, v in row.stats.setup.items()
                if k != "model"
            }
            rows.append(replace(row, stats=replace(row.stats, setup=setup)))
    return rows
