"""The whole recipe on real (synthetic) speech, with models too small to learn."""

import csv
import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

RECIPE = Path(__file__).resolve().parents[2] / "egs2/synth/ofa1"
LAMS = [0.0, 0.64, 1.0]


def run(folder, *options, timeout=1500):
    """run_tiny.sh with every output below ``folder``."""
    places = {"datadir": "data", "dumpdir": "dump", "expdir": "exp"}
    command = [str(RECIPE / "run_tiny.sh"), "--download_dir", f"{folder}/audio"]
    for option, name in places.items():
        command += [f"--{option}", f"{folder}/{name}"]
    return subprocess.run(
        [*command, "--ngpu", "0", *map(str, options)],
        env={**os.environ, "cmd_backend": "local"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a run of stages 1 to 13, its output, and a config to change."""
    folder = tmp_path_factory.mktemp("synth")
    config = folder / "my_ctc.yaml"
    config.write_text((RECIPE / "conf/tiny/train_asr_ctc.yaml").read_text())
    done = run(folder, "--stop_stage", 13, "--asr_config", config)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, done.stdout, config


def rows(folder, system):
    with open(folder / "exp/report/report.csv", encoding="utf-8") as f:
        return [row for row in csv.DictReader(f) if row["system"] == system]


def test_every_stage_ran_in_order(finished):
    stages = [int(n) for n in re.findall(r"\) Stage (\d+):", finished[1])]
    assert stages == list(range(1, 14))


def test_last_lines_are_table_and_picture(finished):
    *lines, last = finished[1].strip().splitlines()
    picture = Path(last.split()[-1])
    assert picture.name == "tradeoff_test.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000
    table = "\n".join(lines[-20:])
    for word in ("ctc", "s2s", "adaptive_price", "WER"):
        assert word in table


def test_ctc_rows_by_lambda(finished):
    found = sorted(rows(finished[0], "ctc"), key=lambda row: float(row["lambda"]))
    assert [float(row["lambda"]) for row in found] == LAMS
    periods = [float(row["period_ms"]) for row in found]
    assert periods[0] == pytest.approx(20.0)
    assert periods[0] < periods[1] < periods[2]
    costs = [float(row["macs_per_second"]) for row in found]
    assert costs[0] > costs[1] > costs[2] > 0
    for row in found:
        assert int(row["utterances"]) == 6 and float(row["rtf"]) > 0
        # Nobody learns much from 30 utterances, and what is untrained may talk a lot.
        kinds = ("substitutions", "deletions", "insertions")
        edits = sum(int(row[kind]) for kind in kinds)
        assert float(row["wer"]) == pytest.approx(100 * edits / int(row["words"]))
        assert float(row["wer"]) > 20


def test_other_systems(finished):
    assert len(rows(finished[0], "s2s")) == 2
    for system in ("adaptive_price", "adaptive_valid", "s2s_adaptive"):
        (adaptive,) = rows(finished[0], system)
        assert adaptive["adaptive"] == "True"
        assert 0 < float(adaptive["lambda"]) < 1
        moved = float(adaptive["lambda"]) - float(adaptive["lambda_start"])
        assert abs(moved) > 1e-6


def test_lambda_alone_leaves_the_recogniser(finished):
    first, alone = (
        torch.load(path / "valid.cer_ctc.ave.pth", weights_only=True)
        for name in ("my_ctc", "train_asr_adaptive_valid")
        for path in finished[0].glob(f"exp/asr_{name}_raw_en_bpe50")
    )
    counts = {"frontend.upstream.policy.draws", "frontend.updates"}
    assert all(v.equal(alone[k]) for k, v in first.items() if k not in counts)


def test_upstream_is_exported_with_its_rate(finished):
    upstream = finished[0] / "exp/ssl_train_ssl_raw/upstream"
    for name in ("config.yaml", "model.safetensors", "rate.json"):
        assert (upstream / name).stat().st_size > 0


def test_shapes_fit_the_data(finished):
    shapes = finished[0] / "exp/asr_stats_raw_en_bpe50/train"
    speech = (shapes / "speech_shape").read_text()
    counted = (finished[0] / "dump/raw/train/utt2num_samples").read_text()
    assert speech == counted
    tokens = (shapes / "text_shape.bpe").read_text().splitlines()
    assert len(tokens) == 30 and all(line.endswith(",50") for line in tokens)


def test_finished_stages_are_skipped(finished):
    folder, output, config = finished
    done = run(folder, "--stop_stage", 13, "--asr_config", config)
    assert done.returncode == 0, done.stderr
    assert "training log" not in done.stdout and "decoding with" not in done.stdout
    assert done.stdout.count("finished before") >= 12
    assert done.stdout.splitlines()[-1] == output.splitlines()[-1]


def test_changed_config_is_noticed(finished):
    folder, _, config = finished
    before = config.read_text()
    try:
        config.write_text(before.replace("dropout_rate: 0.1", "dropout_rate: 0.2"))
        options = ["--stage", 10, "--stop_stage", 10, "--asr_config", config]
        done = run(folder, *options)
        assert done.returncode == 1
        assert f"now: {config}" in done.stderr and "--overwrite true" in done.stderr
        assert (folder / "exp/asr_my_ctc_raw_en_bpe50/valid.cer_ctc.ave.pth").exists()
    finally:
        config.write_text(before)


def test_changed_option_reaches_later_stages(finished):
    folder, _, config = finished
    done = run(folder, "--stage", 4, "--stop_stage", 4, "--max_wav_duration", 19)
    assert done.returncode == 0, done.stderr
    assert "was: max=20" in done.stderr and "now: max=19" in done.stderr
    # The same utterances pass, so later stages still have what they need.
    done = run(folder, "--stage", 6, "--stop_stage", 10, "--asr_config", config)
    assert done.returncode == 0, done.stderr
    assert "training log" not in done.stdout


def test_targets_must_fit_the_audio(finished):
    """Stage 7 names the utterance whose targets are of another length."""
    folder, _, _ = finished
    targets = folder / "exp/ssl_targets_codes16/train/targets"
    before = targets.read_text()
    first, *rest = before.splitlines()
    try:
        short = first.rsplit(" ", 1)[0]
        targets.write_text("\n".join([short, *rest[1:]]) + "\n")
        done = run(
            folder, "--stage", 7, "--stop_stage", 7, "--ssl_stats_dir", folder / "other"
        )
    finally:
        targets.write_text(before)
    assert done.returncode == 1
    assert f"{rest[0].split()[0]} is missing" in done.stderr
    assert re.search(rf"{first.split()[0]} has \d+ targets, its audio \d+", done.stderr)


def test_distillation_from_a_cached_teacher(finished):
    """Stages 6 to 8 once more: the first upstream teaches a second one."""
    folder, _, _ = finished
    options = ["--ssl_config", "conf/tiny/train_ssl_distill.yaml"]
    options += ["--ssl_teacher", folder / "exp/ssl_train_ssl_raw/upstream"]
    options += ["--ssl_teacher_cache", "true", "--ssl_teacher_args", "--layers 0 1"]
    done = run(folder, "--stage", 6, "--stop_stage", 8, *options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in ("train", "valid"):
        index = (folder / f"exp/ssl_teacher_upstream/{name}/teacher.scp").read_text()
        assert index.count("\n") == {"train": 30, "valid": 6}[name]
    exp = folder / "exp/ssl_train_ssl_distill_raw"
    assert (exp / "upstream/rate.json").stat().st_size > 0
    log = (exp / "train.log").read_text()
    assert "cosine_1" in log and "loss_distill" in log


def test_phones_on_the_same_upstream(finished):
    """Stages 5 and 9 to 13 once more, with the true phones in the place of words."""
    folder, _, config = finished
    options = ["--token_type", "phn", "--asr_config", config, "--stage", 5]
    options += ["--stop_stage", 13, "--skip_stages", "6 7 8 11 12"]
    done = run(folder, *options, "--inference_lams", "0")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "PER (%)" in done.stdout and "WER" not in done.stdout
    with open(folder / "exp/report_phn/report.csv", encoding="utf-8") as f:
        (row,) = csv.DictReader(f)
    true = (folder / "dump/raw/test/phones").read_text().splitlines()
    count = sum(phone != "sil" for line in true for phone in line.split()[1:])
    assert int(row["phones"]) == count > 50
    assert float(row["per"]) > 20  # nobody learns much from 30 utterances
    config_yaml = folder / "exp/asr_my_ctc_raw_en_phn/config.yaml"
    assert "token_type: phn\n" in config_yaml.read_text()
    # What is there of words stays.
    assert (folder / "exp/report/report.csv").exists()


def test_packed_models(finished):
    folder, _, config = finished
    done = run(folder, "--stage", 14, "--stop_stage", 14, "--asr_config", config)
    assert done.returncode == 0, done.stderr
    packed = folder / "exp/asr_my_ctc_raw_en_bpe50/packed/model.zip"
    names = zipfile.ZipFile(packed).namelist()
    for ending in ("meta.yaml", "config.yaml", ".pth", "bpe.model"):
        assert any(name.endswith(ending) for name in names), names
    card = (packed.with_name("model") / "README.md").read_text().split("\n---\n")[0]
    assert "model-index" in card  # its results are those of this checkpoint
    assert "datasets:" not in card  # nobody said which
    options = [
        "--skip_upload_hf",
        "false",
        "--hf_repo",
        "user/x",
        "--pack_system",
        "ssl",
    ]
    done = run(folder, "--stage", 15, *options, "--hf_args", "--dry_run")
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "rate.json", "README.md", "checksums.json"):
        assert f"  {name}\n" in done.stdout


def test_publishing_asks_for_a_repository(finished):
    done = run(finished[0], "--stage", 15, "--skip_upload_hf", "false")
    assert done.returncode == 2
    assert "--hf_repo USER/NAME" in done.stderr
