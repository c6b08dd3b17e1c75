"""Kaldi text tables: one ``key value...`` line per entry, keys sorted as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from espnet_ofa.files import write_text


class DataError(ValueError):
    """Something is wrong with a corpus or a data directory.

    Attributes:
        problems: one line each: file, utterance, what was found, what to do.
    """

    SHOWN = 20

    def __init__(self, where: str | Path, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        lines = [f"{where}: {len(self.problems)} problem(s)"]
        lines += [f"  {problem}" for problem in self.problems[: self.SHOWN]]
        if len(self.problems) > self.SHOWN:
            lines.append(f"  ... and {len(self.problems) - self.SHOWN} more")
        super().__init__("\n".join(lines))


def read_table(path: str | Path) -> dict[str, str]:
    """Reads a table; the value is the rest of the line, stripped, maybe empty.

    Raises:
        DataError: an empty line, a repeated key, keys out of order, or not UTF-8.
        FileNotFoundError: no such file.
    """
    table: dict[str, str] = {}
    problems: list[str] = []
    previous = ""
    try:
        text = Path(path).read_text(encoding="utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(path, [f"expected UTF-8 text: {error}"]) from error
    # not splitlines(): a form feed or U+2028 inside a transcript is no line end
    for number, line in enumerate(text.split("\n") if text else [], 1):
        key, value = (*line.split(maxsplit=1), "", "")[:2]
        if not key:
            problems.append(f"line {number} is empty: remove it")
        elif key in table:
            problems.append(f"line {number}: {key} is there twice: keep one")
        else:
            if key < previous:
                problems.append(
                    f"line {number}: {key} comes after {previous}: "
                    "sort the file with LC_ALL=C sort"
                )
            table[key], previous = value.strip(), key
    if problems:
        raise DataError(path, problems)
    return table


def write_table(path: str | Path, table: Mapping[str, str]) -> None:
    """Writes a table, sorted by key."""
    lines = (f"{key} {table[key]}".rstrip() + "\n" for key in sorted(table))
    write_text(path, "".join(lines))
