"""cls.sh: keyword spotting on synthesised words, and speaker identification."""

import csv
import math
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
EGS = ROOT / "egs2"
TEMPLATE = EGS / "TEMPLATE/ofa1"
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
LAMS = [0.0, 0.643, 1.0]
LEARNED = [f"conf/tiny/train_cls_adaptive_{x}.yaml" for x in ("price", "valid")]
UPSTREAM = {
    "extractor": "logmel",
    "extractor_conf": {"dim": 32, "stem_layers": 1, "stem_kernel": 3},
    "dim": 32,
    "layers": 1,
    "heads": 2,
    "ff_dim": 64,
    "pos_kernel": 7,
    "pos_groups": 4,
    "norm_first": True,
}


def run(recipe, folder, *options, env=(), **kwargs):
    """run.sh of a recipe with every output below ``folder``."""
    places = {"datadir": "data", "dumpdir": "dump", "expdir": "exp"}
    command = ["./run.sh", "--download_dir", f"{folder}/audio", "--ngpu", "0"]
    for option, name in places.items():
        command += [f"--{option}", f"{folder}/{name}"]
    return subprocess.run(
        [*command, "--nj", "1", *map(str, options)],
        cwd=EGS / recipe,
        env={**os.environ, "cmd_backend": "local", **dict(env)},
        capture_output=True,
        text=True,
        timeout=900,
        **kwargs,
    )


def speaker_of(kind, number):
    """A name that the recipe puts into this set: test, valid or train."""
    ranges = {"test": range(20), "valid": range(20, 30), "train": range(30, 100)}
    for attempt in range(999):
        name = f"{1000 * number + attempt:08x}"
        if zlib.crc32(name.encode()) % 100 in ranges[kind]:
            return name
    raise AssertionError(kind)


def speak_corpus(root):
    """Twelve classes in the layout of the published test set, ten voices."""
    sys.path.insert(0, str(ROOT / "local"))
    try:
        from synth.speak import Job, record
        from synth.voices import VOICES
    finally:
        sys.path.pop(0)
    kinds = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
    for number, (voice, kind) in enumerate(zip(VOICES["train"], kinds, strict=False)):
        speaker = speaker_of(kind, number)
        for w, word in enumerate([*KEYWORDS, "cat"]):
            folder, prefix = (word, "") if word != "cat" else ("_unknown_", "cat_")
            (root / folder).mkdir(parents=True, exist_ok=True)
            wave, _ = record(Job("u", word, voice, (number, w), root))
            path = root / folder / f"{prefix}{speaker}_nohash_0.wav"
            soundfile.write(path, wave, 16000)
    (root / "_silence_").mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        noise = rng.normal(0, 0.02, 16000)
        soundfile.write(root / f"_silence_/{number}.wav", noise, 16000)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a finished run, its options and its output."""
    pytest.importorskip("torcheval", reason="ESPnet's cls model needs it")
    folder = tmp_path_factory.mktemp("keywords")
    speak_corpus(folder / "corpus")
    (folder / "upstream.yaml").write_text(yaml.safe_dump(UPSTREAM))
    config = folder / "train_cls.yaml"
    config.write_text((TEMPLATE / "conf/tiny/train_cls.yaml").read_text())
    options = [
        *("--data_dir", folder / "corpus", "--upstream", folder / "upstream.yaml"),
        *("--num_threads", 1, "--cls_config", config),
        *("--adaptive_configs", " ".join(LEARNED)),
        *("--inference_lams", " ".join(map(str, LAMS))),
    ]
    done = run("speech_commands/ofa1", folder, *options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, options, done.stdout


def again(finished, *options):
    folder, before, _ = finished
    return run("speech_commands/ofa1", folder, *before, *options)


def before_packing(output):
    """Lines on the screen before those of stage 7."""
    return output.partition(") Stage 7:")[0].splitlines()[:-1]


def test_every_stage_ran_and_the_table_is_last(finished):
    folder, _, output = finished
    stages = [int(n) for n in re.findall(r"\) Stage (\d+):", output)]
    assert stages == list(range(1, 8))
    *lines, last = before_packing(output)
    assert Path(last).read_bytes().startswith(b"\x89PNG")
    assert "accuracy (%)" in lines[-7] and " from 0.643)" in lines[-1]


def test_accuracy_by_measured_period(finished):
    with open(finished[0] / "exp/report/report.csv", encoding="utf-8") as f:
        *grid, adaptive, alone = list(csv.DictReader(f))
    assert [float(row["lambda"]) for row in grid] == LAMS
    periods = [float(row["period_ms"]) for row in grid]
    assert periods[0] == pytest.approx(20.0)
    assert periods[0] < periods[1] < periods[2]
    costs = [float(row["macs_per_second"]) for row in grid]
    assert costs[0] > costs[1] > costs[2] > 0
    for row in (*grid, adaptive, alone):
        right = int(row["utterances"]) - int(row["wrong"])
        share = 100 * right / int(row["utterances"])
        assert float(row["accuracy"]) == pytest.approx(share)
        assert float(row["rtf"]) > 0
    for row in (adaptive, alone):
        assert row["adaptive"] == "True" and 0 < float(row["lambda"]) < 1


def test_lambda_alone_learned_on_the_validation_set(finished):
    """Every weight is the first model's; the data are not those that it has fitted."""
    first, alone = (
        finished[0] / f"exp/cls_{name}_cls_raw"
        for name in ("train", "train_cls_adaptive_valid_train")
    )
    models = [
        torch.load(exp / "valid.acc.ave.pth", map_location="cpu", weights_only=True)
        for exp in (first, alone)
    ]
    changed = {k for k, v in models[0].items() if not v.equal(models[1][k])}
    (lam,) = models[1].keys() - models[0].keys()
    assert changed <= {"frontend.upstream.policy.draws", "frontend.updates"}
    start = math.log(0.643 / (1 - 0.643)) / 200  # of what is learned, at its speed
    assert abs(models[1][lam].item() - start) > 1e-4
    config = yaml.safe_load((alone / "config.yaml").read_text())
    data = {
        Path(path).parent for path, *_ in config["train_data_path_and_name_and_type"]
    }
    assert data == {finished[0] / "dump/raw/valid"}


def test_decisions_are_those_of_the_classes(finished):
    folder = finished[0]
    classes = (folder / "exp/cls_stats_raw/classes.txt").read_text().split()
    assert classes == sorted([*KEYWORDS, "_silence_", "_unknown_"]) + ["<unk>"]
    (out,) = folder.glob("exp/cls_train_cls_raw/classify/lam0.643/test")
    given = dict(line.split() for line in (out / "text").read_text().splitlines())
    assert set(given.values()) <= set(classes[:-1])
    utterances = (folder / "dump/raw/test/text").read_text().splitlines()
    assert list(given) == [line.split()[0] for line in utterances]
    scores = [float(x.split()[1]) for x in (out / "score").read_text().splitlines()]
    assert all(1 / len(classes) < score <= 1 for score in scores)


def test_finished_stages_are_skipped(finished):
    done = again(finished)
    assert done.returncode == 0, done.stderr
    assert "training log" not in done.stdout and "classifying" not in done.stdout
    assert done.stdout.count("finished before") == 14
    assert before_packing(done.stdout)[-1] == before_packing(finished[2])[-1]


def test_classifiers_are_packed_with_their_results(finished):
    folder = finished[0]
    names = ("cls_train_cls_raw", "cls_train_cls_adaptive_price_train_cls_raw")
    for name in names:
        packed = folder / "exp" / name / "packed"
        assert (packed / "model.zip").is_file() and (packed / ".done").is_file()
        card = (packed / "model/README.md").read_text()
        assert "| accuracy (%)" in card and "load_cls" in card
        assert ("was learned" in card) == ("adaptive" in name)


def test_changed_upstream_is_noticed(finished):
    path = finished[0] / "upstream.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("ff_dim: 64", "ff_dim: 32"))
        done = again(finished, "--stage", 4, "--stop_stage", 4)
    finally:
        path.write_text(before)
    assert done.returncode == 1
    assert f"now: {path}" in done.stderr and "--cls_tag" in done.stderr
    assert (finished[0] / "exp/cls_train_cls_raw/valid.acc.ave.pth").exists()


def test_a_new_class_in_the_test_set_is_an_error(finished):
    folder = finished[0]
    text = folder / "dump/raw/test/text"
    before = text.read_text()
    try:
        text.write_text(before.replace(" stop\n", " halt\n"))
        done = again(finished, "--stage", 3, "--stop_stage", 3)
        assert done.returncode == 1
        assert "2 utterances of class halt, which" in done.stderr
        text.write_text(before.replace(" stop\n", " stop it\n"))
        done = again(finished, "--stage", 3, "--stop_stage", 3)
        assert done.returncode == 1
        assert "expected one class, one word; found 'stop it'" in done.stderr
    finally:
        text.write_text(before)
    done = again(finished, "--stage", 3, "--stop_stage", 4)
    assert done.returncode == 0, done.stderr
    assert "training log" not in done.stdout  # made again, and the same


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--upstream is required"),
        (
            ["--upstream", "."],
            "--upstream: . holds no config.yaml; expected the folder",
        ),
        (["--upstream", "no/such/folder"], "--upstream: no/such/folder: no such file"),
        (["--upstream", "u/v", "--cls_config", "no.yaml"], "no.yaml: no such config"),
        (["--upstream", "u/v", "--fixed_lams", "own"], "--fixed_lams is lambdas from"),
    ],
)
def test_bad_options_stop_before_any_stage(tmp_path, options, message):
    done = run("speech_commands/ofa1", tmp_path, *options)
    assert done.returncode == 2 and message in done.stderr
    assert "Stage 1" not in done.stdout and not list(tmp_path.iterdir())


def test_missing_input_names_the_stage(tmp_path):
    options = ["--stage", 4, "--stop_stage", 4, "--upstream", "u/v"]
    done = run("speech_commands/ofa1", tmp_path, *options)
    assert done.returncode == 1 and "run stage 3 first" in done.stderr


# In the place of run.pl: keeps the command, and makes the checkpoint.
TRAIN = """#!/usr/bin/env bash
set -eu
while [ "$1" != --output_dir ]; do shift; done
mkdir -p "$2"
touch "$2/valid.acc.ave.pth"
echo "$@" >"$2/command"
"""


def test_one_model_per_fixed_lambda(recipe, tmp_path):
    write, run_stages = recipe
    write("train", TRAIN, 0o755)
    for which in ("train", "valid"):
        write(f"raw/{which}/text", "u1 yes\n")
        write(f"raw/{which}/wav.scp", "u1 u1.flac\n")
        write(f"exp/stats/{which}/speech_shape", "u1 16000\n")
    write("exp/stats/classes.txt", "yes\n<unk>\n")
    write("exp/stats/.done", "")
    options = dict(
        cuda_cmd="./train", ngpu="0", num_nodes="1", num_threads="1", cls_args="",
        upstream="u", fs="16k", cls_stats_dir="exp/stats", cls_config="conf.yaml",
        token_list="exp/stats/classes.txt", train_dump="raw/train", cls_exp="exp/cls",
        valid_dump="raw/valid", asr_exp="exp/cls", inference_model="valid.acc.ave.pth",
        inference_lams="0 1", adaptive_configs="", fixed_lams="0 0.643", system="ofa",
    )  # fmt: skip
    source = f"""
        . {TEMPLATE}/stages/cls.sh
        fixed_exp() {{ echo exp/cls_lam$1; }}
    """
    done = run_stages(f"{source}stage_4; stage_5; cls_systems", **options)
    assert done.returncode == 0, done.stdout + done.stderr
    command = (tmp_path / "exp/cls_lam0.643/command").read_text()
    assert "--frontend_conf lam=0.643 --frontend_conf lam_train=0.643" in command
    assert "lam_train" not in (tmp_path / "exp/cls/command").read_text()
    found = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    assert [(name, folder, lams) for name, folder, _, lams in found] == [
        ("ofa", "exp/cls", "0 1"),
        ("fixed_0", "exp/cls_lam0", "0"),
        ("fixed_0.643", "exp/cls_lam0.643", "0.643"),
    ]
    # A failed training leaves its model out of the results.
    (tmp_path / "exp/cls_lam0/.done").unlink()
    done = run_stages(f"{source}cls_systems", **options)
    assert "fixed_0\t" not in done.stdout and "is not finished" in done.stderr


def test_speaker_identification_data(tmp_path):
    rng = np.random.default_rng(0)
    for part, speakers in (("train-clean-5", (10, 11)), ("dev-clean-2", (12,))):
        for speaker in speakers:
            folder = tmp_path / "corpus" / part / str(speaker) / "7"
            folder.mkdir(parents=True)
            for number in range(5):
                path = folder / f"{speaker}-7-{number:04d}.flac"
                soundfile.write(path, rng.normal(0, 0.1, 20000), 16000)
    options = ["--data_dir", tmp_path / "corpus", "--stop_stage", 3]
    options += ["--local_data_opts", "--seconds 0.5"]
    done = run("mini_librispeech/spk1", tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    exp = tmp_path / "exp/cls_stats_raw"
    assert (exp / "classes.txt").read_text().split() == ["10", "11", "12", "<unk>"]
    shapes = (exp / "train/speech_shape").read_text().splitlines()
    assert len(shapes) == 3 * 3 * 2 and {s.split()[1] for s in shapes} == {"8000"}
    labels = (exp / "valid/label_shape").read_text().splitlines()
    assert len(labels) == 3 * 1 * 2 and {s.split()[1] for s in labels} == {"1"}
    broken = tmp_path / "corpus/dev-clean-2/12/7/12-7-0003.flac"
    broken.write_bytes(broken.read_bytes()[:500])
    done = run("mini_librispeech/spk1", tmp_path, *options)
    assert done.returncode == 1 and str(broken) in done.stderr
    assert "./run.sh --skip_bad true" in done.stderr
