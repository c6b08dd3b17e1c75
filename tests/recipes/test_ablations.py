"""Ways to train the OFA model: the same recipe, one option more."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from espnet_ofa.tasks.ssl import OFASSLTask

TEMPLATE = Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/ofa1"
CONF = TEMPLATE / "conf"
WAYS = ["ends", "log_period", "uniform_period", "condition_durations", "condition_lam"]
WAYS += ["sandwich", "uniform"]
NAMES = ["ssl_args", "asr_args", "ssl_system", "asr_system", "inference_lams"]
NAMES += ["adaptive_configs"]


def settings(system):
    """What --system makes of the options of ofa.sh."""
    script = """
        usage_error() { echo "$*"; exit 2; }
        . "$1/stages/systems.sh"
        for name in ${names}; do echo "${name}=${!name}"; done
    """
    given = dict.fromkeys(NAMES, "") | {"inference_lams": "0 1", "system": system}
    given |= {"adaptive_configs": "learned.yaml", "asr_args": "--seed 1"}
    done = subprocess.run(
        ["bash", "-euc", script, "-", str(TEMPLATE)],
        env={**os.environ, **given, "names": " ".join(NAMES)},
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def parse(args):
    options = ["--config", str(CONF / "train_ssl.yaml"), *args.split()]
    return OFASSLTask.get_parser().parse_args(options)


@pytest.mark.parametrize("way", WAYS)
def test_a_way_changes_one_thing_and_keeps_lambda(way):
    found = settings(way)
    assert found["ssl_system"] == found["asr_system"] == way
    assert found["inference_lams"] == "0 1"  # as of ofa, unlike a rival's
    assert found["adaptive_configs"] == "learned.yaml"
    assert found["asr_args"].endswith("--seed 1")
    plain, changed = vars(parse("")), vars(parse(found["ssl_args"]))
    differ = [name for name in plain if plain[name] != changed[name]]
    assert len(differ) == 1 + (way == "sandwich")  # which draws ends as it is
    if "lam_train" in differ:
        drawn = "uniform_period" if way == "sandwich" else way
        assert changed["lam_train"] == drawn
        assert f"--frontend_conf lam_train={drawn}" in found["asr_args"]


@pytest.mark.parametrize("way", WAYS)
def test_a_step_of_pre_training(way):
    args = parse(settings(way)["ssl_args"])
    torch.manual_seed(0)
    model = OFASSLTask.build_model(args).train()
    samples, frames = torch.tensor([32240, 16400]), torch.tensor([100, 51])
    codes = torch.randint(0, 100, (2, 100))
    loss, stats, _ = model(torch.randn(2, 32240), samples, codes, frames)
    loss.backward()
    assert torch.isfinite(loss)
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert ("loss_pull" in stats) == (way == "sandwich")


@pytest.mark.parametrize("way", WAYS)
def test_a_step_of_ctc(way, tmp_path):
    from espnet_ofa.tasks.asr import OFAASRTask

    found = settings(way)
    upstream = OFASSLTask.build_model(parse(found["ssl_args"])).upstream
    upstream.save_pretrained(tmp_path / "up")
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("\n".join(["<blank>", "<unk>", "a", "b", "<sos/eos>"]) + "\n")
    options = ["--config", str(CONF / "train_asr_ctc.yaml"), *found["asr_args"].split()]
    options += ["--token_list", str(tokens)]
    for option in (f"upstream={tmp_path / 'up'}", "fs=16k", "freeze_updates=0"):
        options += ["--frontend_conf", option]
    args = OFAASRTask.get_parser().parse_args(options)
    model = OFAASRTask.build_model(args).train()
    text = torch.tensor([[2, 3, 2], [3, -1, -1]]), torch.tensor([3, 1])
    samples = torch.tensor([32240, 16400])
    loss, stats, _ = model(torch.randn(2, 32240), samples, *text)
    loss.backward()
    assert torch.isfinite(loss)
    named = model.named_parameters()
    assert [n for n, p in named if p.requires_grad and p.grad is None] == []
    assert ("missed" in stats) == (way == "sandwich")
    assert stats["lam"] > 0


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("way", ["ofa", *WAYS])
def test_a_step_with_a_learned_lambda(way, alone, recipe, tmp_path):
    """What stage 12 asks of the trainer, which finds it of one piece."""
    from espnet_ofa.tasks.asr import OFAASRTask

    write, run = recipe
    upstream = OFASSLTask.build_model(parse(settings(way)["ssl_args"])).upstream
    upstream.save_pretrained(tmp_path / "up")
    write("tokens.txt", "\n".join(["<blank>", "<unk>", "a", "b", "<sos/eos>"]) + "\n")
    for name in ("exp/ctc/valid.pth", "stats/.done", "dump/text", "dev/text"):
        write(name, "")
    config = f"{CONF}/train_asr_adaptive{'_valid' if alone else ''}.yaml"
    options = dict(
        system=way, asr_args="--seed 1", ssl_args="", upstream=f"{tmp_path}/up",
        asr_exp="exp/ctc", s2s_exp="none", inference_asr_model="valid.pth", fs="16k",
        adaptive_configs=config, s2s_adaptive_configs="",
        inference_lams="", pretrained_upstream="", asr_stats_dir="stats",
        token_list=f"{tmp_path}/tokens.txt",
        asr_train="dump", asr_valid="dev", token_type="char", bpemodel="none",
        asr_speech_fold_length="1", asr_text_fold_length="1", num_nodes="1", ngpu="0",
        num_threads="1", cuda_cmd="echo", nlsyms_txt="none", cleaner="none",
    )  # fmt: skip
    script = f"""
        . {TEMPLATE}/stages/systems.sh
        adaptive_exp() {{ echo "exp/$(config_name "$1")"; }}
        stage_12
    """
    done = run(script, **options)
    assert done.returncode == 0, done.stderr
    (command,) = [x for x in done.stdout.splitlines() if "bin.asr_train " in x]
    words = command.split("bin.asr_train ")[1].split()
    args = OFAASRTask.get_parser().parse_args(words)
    assert args.seed == 1
    learns_on, stats = ("dev", "valid") if alone else ("dump", "train")
    data = [path for path, _, _ in args.train_data_path_and_name_and_type]
    assert data == [f"{learns_on}/wav.scp", f"{learns_on}/text"]
    assert all(path.startswith(f"stats/{stats}/") for path in args.train_shape_file)
    model = OFAASRTask.build_model(args).train()
    text = torch.tensor([[2, 3, 2], [3, -1, -1]]), torch.tensor([3, 1])
    loss, _, _ = model(torch.randn(2, 32240), torch.tensor([32240, 16400]), *text)
    loss.backward()
    assert torch.isfinite(loss)
    assert model.adapter.policy.learnable.raw.grad.abs() > 0
    assert (sum(p.grad is not None for p in model.parameters()) == 1) == alone
