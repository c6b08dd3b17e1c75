"""Checksums tell a damaged folder from a whole one, and say what is damaged."""

import json
import re

import pytest

from espnet_ofa.checksums import CHECKSUMS_NAME, verify, write_checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/model.pth").write_bytes(b"weights")
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "README.md").write_text("card")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/x").write_text("the hub's own")
    write_checksums(tmp_path)
    return tmp_path


def test_lists_everything_but_the_card(folder):
    files = json.loads((folder / CHECKSUMS_NAME).read_text())["files"]
    assert sorted(files) == ["config.yaml", "exp/model.pth"]
    assert files["exp/model.pth"]["bytes"] == 7
    assert re.fullmatch("[0-9a-f]{64}", files["exp/model.pth"]["sha256"])
    assert verify(folder)


def test_the_card_may_be_edited(folder):
    (folder / "README.md").write_text("a better card")
    (folder / "notes").write_text("mine")
    assert verify(folder)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"weight", "expected 7 bytes, found 6"),
        (b"Weights", "expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"),
        (None, "expected 7 bytes, found no such file"),
    ],
)
def test_damage_is_named(folder, content, found):
    path = folder / "exp/model.pth"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"exp/model\.pth: {found}"):
        verify(folder)
    assert verify(folder, only=["config.yaml"])


def test_what_is_asked_for_must_be_listed(folder):
    (folder / "more.yaml").write_text("b: 2")
    assert verify(folder) and verify(folder, only=["config.yaml", "README.md"])
    assert verify(folder, only=["config.yaml", "neither.there.nor.listed"])
    with pytest.raises(ValueError, match=r"more\.yaml: expected .* to list it"):
        verify(folder, only=["config.yaml", "more.yaml"])


def test_no_list_is_told(folder):
    (folder / CHECKSUMS_NAME).unlink()
    assert not verify(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"files": {"a": 1}}'])
def test_a_broken_list_is_an_error(folder, text):
    (folder / CHECKSUMS_NAME).write_text(text)
    with pytest.raises(ValueError, match=r"checksums\.json: expected"):
        verify(folder)
