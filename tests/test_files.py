"""Files are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from espnet_ofa.files import write_file, write_text


def test_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    assert write_text(path, "wörds\n") == path
    assert path.read_text(encoding="utf-8") == "wörds\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = write_text(tmp_path / "b.txt", "old")

    def write(draft: Path) -> None:
        assert draft.suffix == ".txt" and draft.parent == tmp_path
        draft.write_text("half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_file(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
