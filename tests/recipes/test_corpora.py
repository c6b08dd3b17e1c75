"""local/data.sh of the recipes, on corpora of a few seconds."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

EGS = Path(__file__).resolve().parents[2] / "egs2"
NOISE = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)


def make_part(folder, speakers):
    """A folder in LibriSpeech's layout, one utterance per speaker."""
    for speaker in speakers:
        chapter = folder / str(speaker) / "7"
        chapter.mkdir(parents=True)
        utt = f"{speaker}-7-0000"
        soundfile.write(chapter / f"{utt}.flac", NOISE, 16000)
        (chapter / f"{speaker}-7.trans.txt").write_text(f"{utt} HELLO {speaker}\n")


def run(recipe, *options, program="local/data.sh", **env):
    return subprocess.run(
        [program, *map(str, options)],
        cwd=EGS / recipe / "ofa1",
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def utterances(folder):
    return [line.split()[0] for line in (folder / "text").read_text().splitlines()]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("LibriSpeech/train-clean-5", "LibriSpeech/dev-clean-2"),
        ("mini_librispeech/train-clean-5", "librispeech_dev_clean_20/dev-clean"),
        ("train-clean-5", "dev-clean-2"),
    ],
)
def test_mini_librispeech_layouts(tmp_path, train, test):
    corpora = tmp_path / "my corpora"
    make_part(corpora / train, range(10, 15))
    make_part(corpora / test, [99])
    data = tmp_path / "data"
    done = run("mini_librispeech", "--data_dir", corpora, "--datadir", data)
    assert done.returncode == 0, done.stderr
    assert utterances(data / "test") == ["99-7-0000"]
    assert len(utterances(data / "train")) == 4
    assert len(utterances(data / "valid")) == 1
    assert not set(utterances(data / "train")) & set(utterances(data / "valid"))


@pytest.mark.parametrize("speakers", [(), ("--valid_speakers", 2)])
def test_an4(tmp_path, speakers):
    make_part(tmp_path / "train", range(10, 20))
    make_part(tmp_path / "test", [99])
    data = tmp_path / "data"
    done = run("an4", "--datadir", data, *speakers, AN4=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert utterances(data / "test") == ["99-7-0000"]
    held_out = 2 if speakers else 1  # a tenth
    assert len(utterances(data / "valid")) == held_out
    assert len(utterances(data / "train")) == 10 - held_out


def test_more_audio_for_pretraining_needs_no_transcripts(tmp_path):
    make_part(tmp_path / "an4/train", range(10, 20))
    make_part(tmp_path / "an4/test", [99])
    make_part(tmp_path / "more", range(30, 33))
    untold = tmp_path / "untold/more"  # another folder of that name
    make_part(untold, range(40, 43))
    for path in untold.rglob("*.trans.txt"):
        path.unlink()
    (untold / "42/7/42-7-0000.flac").write_bytes(b"")
    # Up to the tokens, of which so little text has fewer than the recipe asks for.
    options = ["--stop_stage", 5, "--ngpu", 0, "--speed_perturb_factors", ""]
    for name in ("data", "dump", "exp"):
        options += [f"--{name}dir", tmp_path / name]
    extra = f"{tmp_path}/more {untold}/"
    options += ["--data_dir", tmp_path / "an4", "--ssl_extra_dirs", extra]
    done = run("an4", *options, program="./run.sh", cmd_backend="local")
    assert done.returncode == 1 and "./run.sh --skip_bad true" in done.stderr
    options += ["--skip_bad", "true"]
    done = run("an4", *options, program="./run.sh", cmd_backend="local")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    raw = tmp_path / "dump/raw"
    sizes = {
        name: len((raw / name / "wav.scp").read_text().splitlines())
        for name in ("train", "ssl_extra", "ssl_train")
    }
    assert sizes == {"train": 9, "ssl_extra": 5, "ssl_train": 14}
    assert len(utterances(raw / "train")) == 9
    assert not (raw / "ssl_train/text").exists()


def test_corpus_that_is_not_there(tmp_path):
    done = run(
        "mini_librispeech",
        "--datadir",
        tmp_path / "data",
        MINI_LIBRISPEECH=str(tmp_path),
    )
    assert done.returncode == 1
    assert f"train-clean-5 is not in {tmp_path}" in done.stderr


def test_damaged_audio_is_named(tmp_path):
    make_part(tmp_path / "train-clean-5", range(10, 15))
    make_part(tmp_path / "dev-clean-2", [98, 99])
    broken = tmp_path / "dev-clean-2/98/7/98-7-0000.flac"
    broken.write_bytes(broken.read_bytes()[:200])
    (tmp_path / "train-clean-5/14/7/14-7-0000.flac").unlink()
    options = ["--data_dir", tmp_path, "--datadir", tmp_path / "data"]
    done = run("mini_librispeech", *options)
    assert done.returncode == 1
    assert "98-7-0000" in done.stderr and "14-7-0000" in done.stderr
    done = run("mini_librispeech", *options, "--skip_bad", "true")
    assert done.returncode == 0, done.stderr
    assert utterances(tmp_path / "data/test") == ["99-7-0000"]


def test_librispeech_sets(tmp_path):
    for number, part in enumerate(
        ["train-clean-100", "dev-clean", "dev-other", "test-clean", "test-other"]
    ):
        make_part(tmp_path / "LibriSpeech" / part, [10 + number])
    data = tmp_path / "data"
    options = ["--data_dir", tmp_path, "--datadir", data, "--hours", 100]
    done = run("librispeech", *options)
    assert done.returncode == 0, done.stderr
    assert utterances(data / "dev") == ["11-7-0000", "12-7-0000"]
    assert utterances(data / "train_clean_100") == ["10-7-0000"]
    assert not (data / "train_960").exists()
    options[-1] = 300
    assert run("librispeech", *options).returncode == 2
    options[-1] = 10
    done = run("librispeech", *options)
    assert done.returncode == 1 and "1h/0/clean is not in" in done.stderr
    ten = tmp_path / "limited"
    parts = [f"1h/{i}/{kind}" for i in range(6) for kind in ("clean", "other")]
    for number, part in enumerate([*parts, "9h/clean", "9h/other"]):
        make_part(ten / part, [20 + number])
    done = run("librispeech", *options, LIBRISPEECH_FINETUNING=str(ten))
    assert done.returncode == 0, done.stderr
    assert utterances(data / "train_10h") == [f"{20 + n}-7-0000" for n in range(14)]


def test_synth_takes_no_corpus():
    done = run("synth", "--data_dir", "somewhere")
    assert done.returncode == 2 and "corpus is made here" in done.stderr
