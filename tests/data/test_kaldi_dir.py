"""Reading, writing and checking data directories; every error names its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.table import DataError, read_table, write_table


def test_round_trip(make_data, tmp_path):
    data = make_data()
    data.write(tmp_path / "data")
    back = DataDir.read(tmp_path / "data")
    assert (back.wav, back.text, back.utt2spk) == (data.wav, data.text, data.utt2spk)
    assert back.num_samples is None
    assert back.boundaries is not None and data.boundaries is not None
    for utt, segmentation in data.boundaries.items():
        np.testing.assert_allclose(back.boundaries[utt].ends, segmentation.ends)
        assert back.boundaries[utt].phones == segmentation.phones
    spk2utt = (tmp_path / "data" / "spk2utt").read_text()
    assert spk2utt == "anna anna-0 anna-1\nbert bert-2 bert-3\n"
    assert not list((tmp_path / "data").glob(".*")), "a temporary file was left behind"


def test_written_keys_are_in_byte_order(tmp_path):
    write_table(tmp_path / "text", {"b": "2", "A": "1", "a-1": "x", "a_1": "y"})
    keys = [line.split()[0] for line in (tmp_path / "text").read_text().splitlines()]
    assert keys == sorted(keys, key=lambda key: key.encode())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a 1\na 2\n", "line 2: a is there twice"),
        ("b 1\na 2\n", "line 2: a comes after b"),
        ("a 1\n\nb 2\n", "line 2 is empty"),
    ],
)
def test_bad_tables_name_the_line(tmp_path, lines, message):
    (tmp_path / "text").write_text(lines)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / "text")
    assert str(tmp_path / "text") in str(caught.value)


def test_tables_keep_odd_white_space_inside_values(tmp_path):
    (tmp_path / "text").write_text("a\tONE  TWO\u2028THREE \nb\n")
    assert read_table(tmp_path / "text") == {"a": "ONE  TWO\u2028THREE", "b": ""}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("text", "anna-1 THREE\n", "", "text: anna-1 is missing"),
        ("text", "anna-1 THREE", "anna-9 THREE", "wav.scp: anna-9 is missing"),
        ("utt2spk", "bert-2 bert\n", "", "utt2spk: bert-2 is missing"),
        ("utt2spk", "bert-2 bert\n", "bert-2\n", "utt2spk: bert-2 has an empty"),
        ("boundaries", "bert-3 ", "bert-3 x", "bert-3: not a list of numbers"),
        ("boundaries", "bert-3 0.5", "bert-3 1.9", "bert-3: ends must increase"),
        ("phones", "anna-0 sil a", "anna-0 sil", "anna-0: 3 segments but 2 labels"),
    ],
)
def test_tables_that_disagree(make_data, tmp_path, name, old, new, message):
    make_data().write(tmp_path / "data")
    edit(tmp_path / "data" / name, old, new)
    with pytest.raises(DataError, match=message):
        DataDir.read(tmp_path / "data")


def test_pipes_and_segments_are_refused(make_data, tmp_path):
    make_data().write(tmp_path / "data")
    (tmp_path / "data" / "segments").write_text("a b 0 1\n")
    with pytest.raises(DataError, match="segments"):
        DataDir.read(tmp_path / "data")
    (tmp_path / "data" / "segments").unlink()
    edit(tmp_path / "data" / "wav.scp", "anna-0.flac", "anna-0.flac sox - |")
    with pytest.raises(DataError, match="anna-0 is a pipe"):
        DataDir.read(tmp_path / "data")


def test_not_a_data_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="is .* a data directory"):
        DataDir.read(tmp_path)


def test_thorough_check_finds_missing_audio_and_empty_text(make_data, tmp_path):
    data = make_data()
    data.check("data", thorough=True)
    Path(data.wav["anna-0"]).unlink()
    Path(data.wav["anna-1"]).write_bytes(b"")
    assert data.text is not None
    data.text["bert-2"] = ""
    data.check("data")
    with pytest.raises(DataError) as caught:
        data.check("data", thorough=True)
    assert len(caught.value.problems) == 3
    for piece in ("anna-0.flac does not exist", "anna-1.flac is empty", "bert-2"):
        assert piece in str(caught.value)


def test_long_error_lists_are_cut_but_counted():
    error = DataError("x", [f"problem {number}" for number in range(50)])
    assert "50 problem(s)" in str(error) and "and 30 more" in str(error)


def test_subset_and_combine(make_data):
    data = make_data()
    first, second = data.subset(["anna-1"]), data.subset(["bert-3", "anna-0"])
    assert second.utterances == ["anna-0", "bert-3"]
    both = DataDir.combine([first, second])
    assert both.text == {utt: data.text[utt] for utt in ("anna-0", "anna-1", "bert-3")}
    assert both.boundaries is not None and set(both.boundaries) == set(both.wav)
    assert both.num_samples is None
    with pytest.raises(DataError, match="anna-1 is in two"):
        DataDir.combine([first, data])
    with pytest.raises(KeyError, match="nobody"):
        data.subset(["nobody"])
    # what a combination loses does not come from the parts' own tables
    assert first.boundaries is not None and set(first.boundaries) == {"anna-1"}


def test_rewriting_removes_tables_that_are_gone(make_data, tmp_path):
    data = make_data()
    data.write(tmp_path / "data")
    DataDir(data.wav, data.utt2spk).write(tmp_path / "data")
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert names == {"wav.scp", "utt2spk", "spk2utt"}
