"""One tier of intervals from a Praat TextGrid, long or short form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Interval(NamedTuple):
    """Part of an utterance.

    Attributes:
        start: seconds.
        end: seconds.
        label: what is said; None where nobody knows.
    """

    start: float
    end: float
    label: str | None


# What counts in both forms is text in quotes and numbers that stand alone; the long
# form's ``xmin =`` and ``intervals [1]:`` are comments.
_WORD = re.compile(r'"((?:[^"]|"")*)"|([^\s"]+)')
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")


def read_tier(path: str | Path, name: str) -> list[Interval]:
    """Intervals of the tier with that name, as they stand in the file.

    Raises:
        ValueError: not a whole TextGrid, no such tier, or a tier of points.
    """
    raw = Path(path).read_bytes()
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        tiers = _tiers(_values(raw.decode(encoding)))
    except (UnicodeDecodeError, StopIteration, TypeError) as error:
        raise ValueError(
            f"{path}: expected a TextGrid as text, long or short; found something else "
            "or a part of one: write it again"
        ) from error
    if name not in tiers:
        found = ", ".join(map(repr, tiers)) or "none"
        raise ValueError(
            f"{path}: expected a tier {name!r}, found {found}; choose one with --tier"
        )
    tier = tiers[name]
    if tier is None:
        raise ValueError(
            f"{path}: tier {name!r} holds points, expected intervals; choose another "
            "with --tier"
        )
    return tier


def _values(text: str) -> Iterator[str | float]:
    for match in _WORD.finditer(text):
        quoted, word = match.groups()
        if quoted is not None:
            yield quoted.replace('""', '"')
        elif _NUMBER.fullmatch(word):
            yield float(word)


def _tiers(values: Iterator[str | float]) -> dict[str, list[Interval] | None]:
    """Tier by name, None for one of points; the first of several of one name."""

    def text() -> str:
        value = next(values)
        if not isinstance(value, str):
            raise TypeError(value)
        return value

    def number() -> float:
        value = next(values)
        if not isinstance(value, float):
            raise TypeError(value)
        return value

    if not text().startswith("ooTextFile") or text() != "TextGrid":
        raise TypeError("another kind of file")
    _ = number(), number()  # the whole grid's start and end
    tiers: dict[str, list[Interval] | None] = {}
    for _ in range(int(number())):
        kind, name = text(), text()
        _ = number(), number()
        entries = range(int(number()))
        if kind == "IntervalTier":
            tier = [Interval(number(), number(), text()) for _ in entries]
        else:
            tier = None
            for _ in entries:
                _ = number(), text()
        tiers.setdefault(name, tier)
    return tiers
