"""Finished work is skipped, interrupted work goes on, what changed is noticed."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

STAGES = Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/ofa1/stages"
COMMON = STAGES / "common.sh"


@pytest.fixture
def shell(tmp_path):
    """Run a script after common.sh, in a folder with a config."""
    (tmp_path / "conf.yaml").write_text("lr: 1\n")

    def run(script, **env):
        return subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n. {COMMON}\n{script}"],
            cwd=tmp_path,
            env={**os.environ, "overwrite": "false", **env},
            capture_output=True,
            text=True,
        )

    return run


WORK = 'if {what} out conf.yaml "n=${{n:-1}}"; then echo made >>out/log; {end}; fi'


def made(folder):
    log = folder / "out/log"
    return log.read_text().count("made") if log.exists() else 0


@pytest.mark.parametrize("what", ["to_do", "to_update", "to_train"])
def test_finished_is_skipped(shell, tmp_path, what):
    work = WORK.format(what=what, end="finish out")
    assert shell(work).returncode == 0
    again = shell(work)
    assert made(tmp_path) == 1
    assert "finished before; to" in again.stdout
    (tmp_path / "conf.yaml").touch()  # same content
    shell(work)
    assert made(tmp_path) == 1
    (tmp_path / "out/.done").unlink()
    shell(work)
    assert (tmp_path / "out/.done").exists()


@pytest.mark.parametrize("what", ["to_do", "to_update", "to_train"])
def test_interrupted_goes_on(shell, tmp_path, what):
    assert shell(WORK.format(what=what, end="exit 1")).returncode == 1
    assert not (tmp_path / "out/.done").exists()
    assert shell(WORK.format(what=what, end="finish out")).returncode == 0
    assert made(tmp_path) == 2  # the first half was kept


@pytest.mark.parametrize("end", ["finish out", "exit 1"])
def test_changed_config_starts_data_again(shell, tmp_path, end):
    shell(WORK.format(what="to_do", end=end))
    (tmp_path / "out/old").write_text("left over")
    (tmp_path / "conf.yaml").write_text("lr: 2\n")
    done = shell(WORK.format(what="to_do", end="finish out"))
    assert done.returncode == 0
    assert made(tmp_path) == 1 and not (tmp_path / "out/old").exists()
    if end == "finish out":
        assert "was: conf.yaml" in done.stderr and "now: conf.yaml" in done.stderr


def test_changed_option_keeps_decodings(shell, tmp_path):
    work = WORK.format(what="to_update", end="finish out")
    shell(work)
    assert "now: n=2" in shell(work, n="2").stderr
    assert made(tmp_path) == 2


@pytest.mark.parametrize("end", ["finish out", "exit 1"])
def test_a_model_is_not_removed_unasked(shell, tmp_path, end):
    shell(WORK.format(what="to_train", end=end))
    (tmp_path / "conf.yaml").write_text("lr: 2\n")
    work = WORK.format(what="to_train", end="finish out")
    refused = shell(work)
    assert refused.returncode == 1 and made(tmp_path) == 1
    assert "--overwrite true" in refused.stderr and "now: conf.yaml" in refused.stderr
    assert shell(work, overwrite="true").returncode == 0
    assert made(tmp_path) == 1  # of the new one
    assert "finished before" in shell(work).stdout


def test_a_model_goes_on_where_its_stamp_is_removed(shell, tmp_path):
    work = WORK.format(what="to_train", end="finish out")
    shell(work)
    (tmp_path / "conf.yaml").write_text("lr: 2\n")
    (tmp_path / "out/.from").unlink()
    assert shell(work).returncode == 0
    assert made(tmp_path) == 2


def test_foreign_folder_is_left_alone(shell, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("mine")
    done = shell(WORK.format(what="to_do", end="finish out"))
    assert done.returncode == 1 and "did not make it" in done.stderr
    assert (tmp_path / "out/precious").exists()


@pytest.fixture
def recipe(tmp_path, shell):
    """Run stages of ofa.sh with an environment of options, on small files."""

    def write(name, text, mode=0o644):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(script, **env):
        files = (STAGES / f"{name}.sh" for name in ("data", "ssl", "asr", "results"))
        sourced = "".join(f". {path}\n" for path in files)
        return shell(f"{sourced}{script}", **env)

    return write, run


# In the place of Slurm or run.pl: writes what the decoding that it is given would.
DECODE = """#!/usr/bin/env bash
set -eu
while [ "$1" != --output_dir ]; do shift; done
out=$2
while [ "$1" != --lam ]; do shift; done
for lam in ${2} ${3:-}; do
    [[ ${lam} != --* ]] || break
    mkdir -p "${out}/lam${lam}/test"
    echo x >>"${out}/lam${lam}/test/text"
done
exit "${STATUS:-0}"
"""


def test_changed_decoding_starts_empty(recipe, tmp_path):
    write, run = recipe
    write("decode", DECODE, 0o755)
    for name in ("raw/test/wav.scp", "exp/model.pth", "exp/config.yaml"):
        write(name, "x\n")
    out = tmp_path / "exp/decode"
    options = dict(
        decode_cmd="./decode", raw="raw", test_sets="test", inference_tag="decode",
        inference_args="", inference_nj="1", inference_gpu="0", num_threads="1",
        gpu_inference="false",
    )  # fmt: skip

    def decode(lams, **env):
        script = f"decode exp model.pth conf.yaml '{lams}'"
        return run(script, **{**options, **env})

    def found():
        return {p.name: (p / "test/text").read_text() for p in out.glob("lam*")}

    assert decode("0 1", STATUS="1").returncode == 1
    assert decode("0 1").returncode == 0
    assert found() == {"lam0": "x\nx\n", "lam1": "x\nx\n"}  # went on
    write("exp/decode/logdir/output.1/lam0/test/text", "of another number of jobs")
    assert decode("0").returncode == 0
    assert found() == {"lam0": "x\n"}
    assert not (out / "logdir").exists()
    write("exp/config.yaml", "trained again\n")
    assert decode("0", STATUS="1").returncode == 1
    assert decode("0", inference_args="--nbest 2").returncode == 0
    assert found() == {"lam0": "x\n"}


@pytest.mark.parametrize("segments", ["codes", "none"])
def test_pretraining_depends_on_its_segments(recipe, tmp_path, segments):
    write, run = recipe
    for which in ("train", "valid"):
        write(f"targets/{which}/targets", "a 1\n")
        write(f"targets/{which}/boundaries", "a 1\n")
        write(f"stats/{which}/speech_shape", "a 1\n")
    write("stats/.done", "")
    options = dict(
        ssl_stats_dir="stats", ssl_targets_dir="targets", ssl_exp="exp",
        ssl_dump="raw/train", valid_dump="raw/valid", valid_set="valid",
        ssl_config="conf.yaml", ssl_args="", ssl_model="x", ssl_num_codes="2",
        train_cmd="true", cuda_cmd="true", ngpu="0", num_nodes="1", nj="1",
        num_threads="1", upstream="exp/upstream", ssl_segments=segments,
    )  # fmt: skip
    assert run("stage_8", **options).returncode == 0
    assert "finished before" in run("stage_8", **options).stdout
    write("targets/valid/boundaries", "a 2\n")
    again = run("stage_8", **options)
    assert again.returncode == (segments != "none")
    assert ("now: targets/valid/boundaries" in again.stderr) == (segments != "none")


def test_data_depend_on_code_and_corpus(recipe, tmp_path):
    write, run = recipe
    write("local/data.sh", "#!/bin/sh\necho made of ${MINE} >>data/log\n", 0o755)
    write("db.sh", "MINE=${MINE:-}\nOTHER=${OTHER:-}\n")
    write("data/train/wav.scp", "x\n")
    write("checkout/local/synth/voices.py", "VOICES = 1\n")
    write("template/local/train_valid_test.sh", "true\n")
    options = dict(
        OFA_ROOT="checkout", OFA_TEMPLATE="template",
        datadir="data", train_set="train", data_dir="",
        valid_set="train", test_sets="", ssl_train_set="", ssl_extra_dirs="",
        download_dir="downloads", nj="1", local_data_opts="", MINE="/here",
    )  # fmt: skip

    def times(**env):
        done = run("stage_1", **{**options, **env})
        assert done.returncode == 0, done.stderr
        return (tmp_path / "data/log").read_text().count("made")

    assert times() == times() == times(OTHER="/unused") == 1
    assert times(MINE="/there") == times(MINE="/there") == 2
    assert times(MINE="/there", data_dir="/elsewhere") == 3
    write("checkout/local/synth/voices.py", "VOICES = 2\n")
    assert times(MINE="/there", data_dir="/elsewhere") == 4
    write("template/local/train_valid_test.sh", "false\n")
    assert times(MINE="/there", data_dir="/elsewhere") == 5


def test_interrupted_targets_go_on(recipe, tmp_path):
    """Stage 6 keeps the codebook and the data sets that an interrupted run finished."""
    write, run = recipe
    rng = np.random.default_rng(0)
    for name in ("train", "valid"):
        for utt in ("a", "b"):
            noise = rng.normal(0, 0.1, 16000).astype(np.float32)
            soundfile.write(tmp_path / f"{name}_{utt}.wav", noise, 16000)
        scp = "".join(f"{utt} {tmp_path}/{name}_{utt}.wav\n" for utt in ("a", "b"))
        write(f"raw/{name}/wav.scp", scp)
        write(f"raw/{name}/utt2spk", "a a\nb b\n")
    options = dict(
        ssl_targets_dir="targets", ssl_dump="raw/train", valid_dump="raw/valid",
        ssl_num_codes="4", ssl_segments="codes", ssl_targets_args="", nj="1",
        train_cmd="run.pl",
    )  # fmt: skip
    stage_6 = f". {STAGES.parent}/path.sh\nstage_6"

    def contents():
        return {p: p.read_bytes() for p in sorted((tmp_path / "targets").glob("*/*"))}

    assert run(stage_6, **options).returncode == 0
    whole = contents()
    assert {p.name for p in whole} == {"targets", "boundaries", "facts.json"}

    targets = tmp_path / "targets"
    (targets / ".done").unlink()  # to redo what is finished is to redo it all
    broken = tmp_path / "valid_b.wav"
    broken.rename(tmp_path / "away")
    assert run(stage_6, **options).returncode == 1
    assert not (targets / "valid/targets").exists()  # not that of the run before
    (tmp_path / "away").rename(broken)
    kept = [targets / "kmeans.npy", targets / "train/targets"]
    times = [path.stat().st_mtime_ns for path in kept]
    assert run(stage_6, **options).returncode == 0
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert contents() == whole


@pytest.mark.parametrize(
    ("config", "options", "cores"),
    [
        ("num_workers: 4\n", "", 6),
        ("num_workers: 4  # a comment\n", "--num_workers 0", 2),
        ("lr: 1\n", "", 3),
    ],
)
def test_a_training_asks_for_the_cores_that_it_uses(recipe, config, options, cores):
    write, run = recipe
    write("conf.yaml", config)
    write("exp/.from", "")
    settings = dict(cuda_cmd="echo", ngpu="1", num_nodes="1", num_threads="2")
    done = run(f"train exp module --config conf.yaml {options}", **settings)
    assert done.returncode == 0, done.stderr
    assert f"--gpu 1 --num_threads {cores} exp/train.log" in done.stdout
