"""Speech Commands, whole or as folders of classes, and in disrepair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import speech_commands as program
from espnet_ofa.data.kaldi_dir import DataDir

SPEAKERS = [f"{number:08x}" for number in range(22, 32)]  # of every set


def prepare(corpus: Path, out: Path, *options: str) -> int:
    where = ["--corpus_dir", str(corpus), "--out_dir", str(out / "data")]
    return program.main([*where, "--audio_dir", str(out / "a"), "--nj", "1", *options])


def read(out: Path) -> dict[str, DataDir]:
    return {name: DataDir.read(out / "data" / name) for name in program.SETS}


@pytest.fixture
def classes(tmp_path, write_noise) -> Path:
    """Twelve folders, as in the published test set."""
    root = tmp_path / "corpora" / "speech_commands_test"
    for word in program.KEYWORDS:
        for speaker in SPEAKERS:
            # The published set doubles suffixes.
            write_noise(root / word / f"{speaker}_nohash_0.wav.wav")
    for number, speaker in enumerate(SPEAKERS):
        word = ("cat", "tree")[number % 2]
        write_noise(root / "_unknown_" / f"{word}_{speaker}_nohash_{number}.wav")
        write_noise(root / "_silence_" / f"{number}.ogg", subtype="OPUS")
    return root


@pytest.fixture
def whole(tmp_path, write_noise) -> Path:
    """The corpus with its lists: ten keywords, three other words, noise."""
    root = tmp_path / "whole"
    listed: dict[str, list[str]] = {"valid": [], "test": []}
    for word in (*program.KEYWORDS, "cat", "tree", "wow"):
        for number, speaker in enumerate(SPEAKERS):
            name = f"{word}/{speaker}_nohash_1.wav"
            write_noise(root / name)
            if number < 6:
                listed["valid" if number < 2 else "test"].append(name)
    for name, names in listed.items():
        (root / program.LISTS[name]).write_text("\n".join(names) + "\n")
    (root / "_background_noise_").mkdir()
    hum = np.linspace(-0.5, 0.5, 16 * 16000)  # its level tells the time
    sf.write(root / "_background_noise_" / "hum.wav", hum, 16000)
    return root


def test_folders_of_classes_are_divided_by_speaker(classes, tmp_path):
    (classes / "README.md").write_text("not audio\n")
    assert prepare(classes.parent, tmp_path) == 0  # found in a folder of corpora
    sets = read(tmp_path)
    assert sum(map(len, sets.values())) == 12 * len(SPEAKERS)
    assert set((sets["train"].text or {}).values()) == {
        *program.KEYWORDS,
        "_unknown_",
        "_silence_",
    }
    speakers = [set(data.spk2utt) - {"noise"} for data in sets.values()]
    assert sum(map(len, speakers)) == len(set().union(*speakers)) == len(SPEAKERS)
    text = {**(sets["train"].text or {}), **(sets["test"].text or {})}
    assert text[f"{SPEAKERS[0]}-yes-0"] == "yes"
    assert not (tmp_path / "data/problems.log").exists()
    before = {name: data.wav for name, data in sets.items()}
    assert prepare(classes, tmp_path) == 0
    assert {name: data.wav for name, data in read(tmp_path).items()} == before


def test_whole_corpus_goes_by_its_lists(whole, tmp_path):
    assert prepare(whole, tmp_path, "--classes", "35") == 0
    sets = read(tmp_path)
    assert [len(sets[name]) for name in program.SETS] == [13 * 4, 13 * 2, 13 * 4]
    assert set(sets["valid"].spk2utt) == set(SPEAKERS[:2])
    assert set((sets["test"].text or {}).values()) >= {"cat", "tree", "wow", "yes"}


def test_twelve_classes_of_the_whole_corpus(whole, tmp_path):
    assert prepare(whole, tmp_path) == 0
    levels = {}
    for name, data in read(tmp_path).items():
        labels = list((data.text or {}).values())
        count = {label: labels.count(label) for label in set(labels)}
        per_word = {"train": 4, "valid": 2, "test": 4}[name]
        assert set(count) == {*program.KEYWORDS, "_unknown_", "_silence_"}
        assert set(count.values()) == {per_word}
        cuts = [data.wav[u] for u, label in data.text.items() if label == "_silence_"]
        waves = [sf.read(path)[0] for path in cuts]
        assert all(len(wave) == 16000 for wave in waves)
        ends = [(wave.min(), wave.max()) for wave in waves]
        levels[name] = min(low for low, _ in ends), max(high for _, high in ends)
    # No moment of the noise is in two sets.
    assert levels["train"][1] < levels["valid"][0] < levels["valid"][1]
    assert levels["valid"][1] < levels["test"][0]


def test_everything_wrong_is_named(classes, tmp_path, capsys):
    for path in (classes / "stop").iterdir():
        path.unlink()
    (classes / "yes" / f"{SPEAKERS[0]}_nohash_0.wav.wav").write_bytes(b"RIFF")
    (classes / "no" / "song.wav").write_bytes(b"")
    (classes / "music").mkdir()
    assert prepare(classes, tmp_path) == 1
    log = (tmp_path / "data/problems.log").read_text()
    assert f"PROBLEM: class without audio: 1\n  {classes / 'stop'}: no such" in log
    assert "PROBLEM: unreadable audio: 1" in log and f"yes/{SPEAKERS[0]}" in log
    assert (
        f"file not named SPEAKER_nohash_NUMBER: 1\n  {classes / 'no/song.wav'}" in log
    )
    assert (
        f"note: folder that is no class of this task: 1\n  {classes / 'music'}" in log
    )
    assert "--skip_bad" in capsys.readouterr().err
    assert not (tmp_path / "data/train").exists()
    assert prepare(classes, tmp_path, "--skip_bad") == 0
    assert sum(map(len, read(tmp_path).values())) == 11 * len(SPEAKERS) - 1


def test_listed_files_must_be_there(whole, tmp_path):
    (whole / "cat" / f"{SPEAKERS[0]}_nohash_1.wav").unlink()
    for path in (whole / "_background_noise_").iterdir():
        path.unlink()
    assert prepare(whole, tmp_path) == 1
    log = (tmp_path / "data/problems.log").read_text()
    assert f"cat/{SPEAKERS[0]}_nohash_1.* (in validation_list.txt)" in log
    assert f"{whole / '_background_noise_'}: no such folder, or empty" in log


def test_what_cannot_be_prepared(classes, tmp_path, capsys):
    assert prepare(tmp_path / "nowhere", tmp_path) == 1
    assert "no folder yes in" in capsys.readouterr().err
    assert prepare(classes, tmp_path, "--classes", "35") == 1
    assert "goes with --classes 12" in capsys.readouterr().err
