"""Tables made part by part: the same tables, and no finished part is made again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from espnet_ofa.data.parts import forget_parts, write_in_parts
from espnet_ofa.data.table import read_table

UTTERANCES = [f"u{number:02d}" for number in range(11)]
NAMES = ("codes", "ends")


class Maker:
    """Makes lines; remembers for which utterances, and breaks where told to."""

    def __init__(self, breaks_at: str = "") -> None:
        self.breaks_at = breaks_at
        self.made: list[str] = []

    def __call__(self, utterances: Sequence[str]) -> dict[str, dict[str, str]]:
        if self.breaks_at in utterances:
            raise KeyboardInterrupt
        self.made += utterances
        return {name: {u: f"{name} of {u}" for u in utterances} for name in NAMES}


def write(folder: Path, make: Maker) -> list[str]:
    write_in_parts(folder, NAMES, UTTERANCES, make, size=4)
    return make.made


def test_a_break_loses_one_part(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Maker("u09"))
    assert not (tmp_path / "codes").exists()
    # Killed between the tables of a part: that part counts for nothing.
    (tmp_path / "parts" / "ends.2").unlink()
    assert write(tmp_path, Maker()) == UTTERANCES[4:]
    for name in NAMES:
        expected = {u: f"{name} of {u}" for u in UTTERANCES}
        assert read_table(tmp_path / name) == expected
    assert {path.name for path in tmp_path.iterdir()} == {*NAMES}
    assert write(tmp_path, Maker()) == []


def test_forgotten_parts_are_made_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Maker("u09"))
    forget_parts(tmp_path, NAMES)
    assert write(tmp_path, Maker()) == UTTERANCES
    forget_parts(tmp_path, NAMES)
    assert write(tmp_path, Maker()) == UTTERANCES
