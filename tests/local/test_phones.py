"""Phones in the place of words: from the corpus, from espeak-ng, from a lexicon."""

from __future__ import annotations

import numpy as np
import pytest

import phones
from espnet_ofa.data.boundaries import Segmentation
from espnet_ofa.data.kaldi_dir import DataDir

TEXT = {"a-1": "THE CAT", "a-2": "CAT"}
LEXICON = "the DH AH\nTHE DH IY\nCAT K AE T\n\nDOG D AO G\n"


@pytest.fixture
def make(tmp_path):
    """Write a data directory, with labels where they are given, and convert it."""

    def convert(g2p, labels=None, text=TEXT):
        wav = {utt: f"{utt}.flac" for utt in TEXT}
        segments = None
        if labels:
            segments = {
                utt: Segmentation(np.arange(1.0, len(names) + 1), tuple(names))
                for utt, names in labels.items()
            }
        data = DataDir(wav, dict.fromkeys(wav, "a"), text, boundaries=segments)
        data.write(tmp_path / "in")
        out = tmp_path / "out"
        options = ["--data_dir", tmp_path / "in", "--out_dir", out]
        status = phones.main([*map(str, options), "--g2p", str(g2p), "--nj", "1"])
        return DataDir.read(out) if status == 0 else None

    return convert


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(LEXICON)
    return path


def test_own_phones_without_silence(make):
    labels = {"a-1": ["sil", "D", "@", "k", "sil"], "a-2": ["k", "a"]}
    data = make("none", labels)
    assert data.text == {"a-1": "D @ k", "a-2": "k a"}
    assert data.wav == {"a-1": "a-1.flac", "a-2": "a-2.flac"}


def test_the_first_pronunciation_counts(make, lexicon):
    assert make(lexicon).text == {"a-1": "DH AH K AE T", "a-2": "K AE T"}


def test_espeak(make):
    data = make("espeak")
    assert data.text["a-1"].endswith(data.text["a-2"])
    assert len(data.text["a-2"].split()) == 3 and "sil" not in data.text["a-1"]


def test_one_of_espnets(make):
    data = make("korean_jaso_no_space", text=dict.fromkeys(TEXT, "나"))
    assert len(data.text["a-1"].split()) == 2


@pytest.mark.parametrize(
    ("g2p", "labels", "text", "message"),
    [
        ("none", None, TEXT, "2 of 2 utterances have no phones of their own (a-1"),
        ("none", {"a-1": ["sil"], "a-2": ["k"]}, TEXT, "a-1 and 0 others have no"),
        ("espeak", None, None, "there is no text to pronounce"),
        ("no_such", None, TEXT, "a lexicon that exists"),
    ],
)
def test_bad_input(make, capsys, g2p, labels, text, message):
    assert make(g2p, labels, text) is None
    assert message in capsys.readouterr().err


def test_words_that_the_lexicon_lacks(make, lexicon, capsys):
    assert make(lexicon, text={"a-1": "THE BIRD", "a-2": "CAT"}) is None
    assert "1 words are not in the lexicon: BIRD (a-1)" in capsys.readouterr().err
    lexicon.write_text(LEXICON + "BIRD\n")
    assert make(lexicon) is None
    assert "line 6: BIRD has no phones" in capsys.readouterr().err
