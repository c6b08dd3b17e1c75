"""Speakers as classes, from LibriSpeech's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import speakers as program
from espnet_ofa.data.kaldi_dir import DataDir


def prepare(corpus: Path, out: Path, *options: str) -> int:
    where = ["--corpus_dir", str(corpus), "--parts", "some-part", "--nj", "1"]
    where += ["--out_dir", str(out / "data"), "--audio_dir", str(out / "pieces")]
    return program.main([*where, *options])


def read(out: Path) -> dict[str, DataDir]:
    return {name: DataDir.read(out / "data" / name) for name in program.SETS}


def test_every_speaker_is_in_every_set(make_corpus, tmp_path):
    corpus = make_corpus()
    for path in corpus.rglob("*.trans.txt"):
        path.unlink()  # nobody reads them
    assert prepare(corpus, tmp_path, "--seconds", "0") == 0
    sets = read(tmp_path)
    assert [len(sets[name]) for name in program.SETS] == [12, 3, 3]
    for data in sets.values():
        assert list(data.spk2utt) == ["19", "26", "32"]
        assert data.text == data.utt2spk
    assert "26-8-0002" in sets["test"].wav and "26-8-0001" in sets["valid"].wav
    assert sets["train"].wav["26-7-0000"].startswith(str(corpus))


def test_pieces_are_the_utterance(make_corpus, tmp_path):
    corpus = make_corpus()
    source = corpus / "some-part/19/7/19-7-0000.flac"
    sf.write(source, np.random.default_rng(0).uniform(-1, 1, 3600), 16000)
    assert prepare(corpus, tmp_path, "--seconds", "0.1") == 0
    train = read(tmp_path)["train"]
    pieces = sorted(utt for utt in train.wav if utt.startswith("19-7-0000-"))
    assert pieces == ["19-7-0000-p00", "19-7-0000-p01"]  # 400 samples are dropped
    waves = [sf.read(train.wav[utt])[0] for utt in pieces]
    np.testing.assert_array_equal(np.concatenate(waves), sf.read(source)[0][:3200])
    kept = Path(train.wav[pieces[0]])
    before = kept.stat().st_mtime_ns
    assert prepare(corpus, tmp_path, "--seconds", "0.1") == 0
    assert kept.stat().st_mtime_ns == before
    # Shorter than a piece: whole.
    assert prepare(corpus, tmp_path, "--seconds", "9") == 0
    assert sf.info(read(tmp_path)["train"].wav["19-7-0000-p00"]).frames == 3600


def test_problems_are_named(make_corpus, tmp_path, capsys):
    part = make_corpus() / "some-part"
    (part / "19/7/19-7-0000.flac").write_bytes(b"")
    assert prepare(part, tmp_path) == 1
    assert "19-7-0000" in (tmp_path / "data/problems.log").read_text()
    assert not (tmp_path / "data/train").exists()
    assert prepare(part, tmp_path, "--skip_bad") == 0
    capsys.readouterr()
    for path in [*part.glob("32/8/*.flac"), *part.glob("32/7/32-7-000[12].flac")]:
        path.unlink()
    for path in part.glob("32/8"):
        for left in path.iterdir():
            left.unlink()
        path.rmdir()
    assert prepare(part, tmp_path, "--skip_bad") == 1
    assert "speaker 32 has 1 utterances" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["0.9", "0.95"])
def test_shares_that_leave_nothing(make_corpus, tmp_path, capsys, share):
    assert prepare(make_corpus(), tmp_path, "--test_share", share) == 1
    assert "leave none to train on" in capsys.readouterr().err
