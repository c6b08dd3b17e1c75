"""Tables about many utterances, made part by part, so that a break loses one part."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from espnet_ofa.data.table import write_table
from espnet_ofa.files import write_text


def write_in_parts(
    folder: str | Path,
    names: Sequence[str],
    utterances: Sequence[str],
    make: Callable[[Sequence[str]], Mapping[str, Mapping[str, str]]],
    *,
    size: int = 5000,
) -> None:
    """Write ``FOLDER/NAME`` for every name, by way of ``FOLDER/parts``.

    What an interrupted call has finished is kept; where it was made from something
    else, :func:`forget_parts` first.

    Args:
        folder: gets the tables.
        names: which tables.
        utterances: sorted ids.
        make: from some ids to their lines in each table.
        size: utterances in a part.
    """
    folder = Path(folder)
    parts = folder / "parts"
    last = names[-1]  # tables are written in order: where this one is, all are
    if not (folder / last).exists():
        starts = range(0, len(utterances), size)
        for number, start in enumerate(starts, 1):
            if (parts / f"{last}.{number}").exists():
                continue
            logging.info("%s: part %d of %d", folder, number, len(starts))
            tables = make(utterances[start : start + size])
            for name in names:
                write_table(parts / f"{name}.{number}", tables[name])
        for name in names:
            made = (parts / f"{name}.{number + 1}" for number in range(len(starts)))
            write_text(folder / name, "".join(p.read_text("utf-8") for p in made))
    shutil.rmtree(parts, ignore_errors=True)


def forget_parts(folder: str | Path, names: Sequence[str]) -> None:
    """Remove what :func:`write_in_parts` has written."""
    shutil.rmtree(Path(folder) / "parts", ignore_errors=True)
    for name in names:
        (Path(folder) / name).unlink(missing_ok=True)
