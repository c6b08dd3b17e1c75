"""AN4 in the university's layout (sphere and headerless) and in LibriSpeech's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import prepare as program
from espnet_ofa.data.audio import read_mono
from espnet_ofa.data.kaldi_dir import DataDir

TRAIN = {
    "an251-fash-b": "YES",
    "an253-fash-b": "GO",
    "cen1-mblb-b": "ONE FIVE",
    "cen2-marw-b": "R U B O U T",
}
TEST = {"cen6-fcaw-b": "RUBOUT G M E F THREE NINE"}


@pytest.fixture
def an4_root(tmp_path, write_noise) -> Path:
    """The layout of an4_sphere.tar.gz."""
    root = tmp_path / "corpus" / "an4"
    (root / "etc").mkdir(parents=True)
    for split, folder, texts in (
        ("train", "an4_clstk", TRAIN),
        ("test", "an4test_clstk", TEST),
    ):
        places = [f"{folder}/{name.split('-')[1]}/{name}" for name in texts]
        for place in places:
            path = root / "wav" / f"{place}.sph"
            write_noise(path, format="NIST", subtype="PCM_16", endian="BIG")
        (root / "etc" / f"an4_{split}.fileids").write_text("\n".join(places) + "\n")
        lines = [
            f"<s> {text} </s> ({name})" if split == "train" else f"{text} ({name})"
            for name, text in texts.items()
        ]
        path = root / "etc" / f"an4_{split}.transcription"
        path.write_text("\n".join(lines) + "\n")
    return root


def prepare(corpus: Path, out: Path, *options: str, part: str = "test") -> int:
    return program.main(
        [
            *("--corpus_dir", str(corpus), "--parts", part),
            *("--out_dir", str(out), "--nj", "1", *options),
        ]
    )


@pytest.mark.parametrize("inside", [False, True])
def test_sphere_layout(an4_root, tmp_path, inside):
    corpus = an4_root if inside else an4_root.parent
    for part in ("train", "test"):
        assert prepare(corpus, tmp_path / part, part=part) == 0
    train, test = (DataDir.read(tmp_path / part) for part in ("train", "test"))
    assert train.text == {
        "fash-an251-b": "YES",
        "fash-an253-b": "GO",
        "mblb-cen1-b": "ONE FIVE",
        "marw-cen2-b": "R U B O U T",
    }
    assert train.utt2spk["marw-cen2-b"] == "marw"
    assert test.text == {"fcaw-cen6-b": "RUBOUT G M E F THREE NINE"}
    wave, rate = read_mono(test.wav["fcaw-cen6-b"])
    assert (len(wave), rate) == (4800, 16000)


def to_raw(root: Path) -> dict[str, np.ndarray]:
    """Turns sphere files into big-endian raw ones; returns the samples."""
    samples = {}
    for path in sorted(root.rglob("*.sph")):
        wave, _ = read_mono(path)
        whole = np.round(wave * 32768).clip(-32768, 32767).astype(">i2")
        raw = root / "raw" / path.relative_to(root / "wav").with_suffix(".raw")
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.write_bytes(whole.tobytes())
        samples[path.stem] = whole.astype(np.float32) / 32768
        path.unlink()
    return samples


def test_big_endian_raw_layout(an4_root, tmp_path, capsys):
    samples = to_raw(an4_root)
    assert prepare(an4_root, tmp_path / "test") == 1
    assert "give --audio_dir" in capsys.readouterr().err
    audio = str(tmp_path / "audio")
    assert prepare(an4_root, tmp_path / "test", "--audio_dir", audio) == 0
    test = DataDir.read(tmp_path / "test")
    wave, _ = read_mono(test.wav["fcaw-cen6-b"])
    np.testing.assert_allclose(wave, samples["cen6-fcaw-b"], atol=1e-4)


def test_broken_sphere_layout(an4_root, tmp_path):
    gone = an4_root / "wav/an4_clstk/fash/an251-fash-b.sph"
    gone.unlink()
    cut = an4_root / "wav/an4test_clstk/fcaw/cen6-fcaw-b.sph"
    cut.write_bytes(cut.read_bytes()[:3000])
    path = an4_root / "etc" / "an4_train.transcription"
    path.write_text(path.read_text() + "nonsense\n<s>  </s> (an9-fash-b)\n")
    assert prepare(an4_root, tmp_path / "test") == 1
    log = (tmp_path / "test.problems.log").read_text()
    assert "unreadable audio: 1" in log and "cen6-fcaw-b.sph: truncated" in log
    assert prepare(an4_root, tmp_path / "train", part="train") == 1
    assert not (tmp_path / "train").exists()
    log = (tmp_path / "train.problems.log").read_text()
    assert "transcript without audio: 1" in log and "fash/an251-fash-b" in log
    assert "line that is no transcript: 1" in log and "line 5: 'nonsense'" in log
    assert "empty transcript: 1" in log and "an9-fash-b" in log


def test_librispeech_layout(make_corpus, tmp_path):
    corpus = make_corpus("test")
    assert prepare(corpus, tmp_path / "test") == 0
    assert len(DataDir.read(tmp_path / "test")) == 18


def test_an4_beside_another_corpus(an4_root, make_corpus, tmp_path):
    corpora = make_corpus("dev-clean")
    assert an4_root.parent == corpora
    assert prepare(corpora, tmp_path / "dev", part="dev-clean") == 0
    assert prepare(corpora, tmp_path / "test") == 0
    assert len(DataDir.read(tmp_path / "dev")) == 18
    assert len(DataDir.read(tmp_path / "test")) == 1


def test_no_corpus(tmp_path, capsys):
    assert prepare(tmp_path, tmp_path / "data") == 1
    assert "test is not in" in capsys.readouterr().err
