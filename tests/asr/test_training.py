"""Through ESPnet's own commands: statistics, checkpoints, optimizers."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_ofa import set_lam
from espnet_ofa.asr.frontend import OFAFrontend


@pytest.fixture
def ctc(tiny):
    """Config of a tiny CTC model behind frontend: ofa."""

    def make(upstream, **more):
        return {
            "frontend": "ofa",
            "frontend_conf": {"upstream": upstream, "lam": 0.6, **more},
            "normalize": "utterance_mvn",
            "encoder": "transformer",
            "encoder_conf": {**tiny, "num_blocks": 1, "input_layer": "linear"},
            "model_conf": {"ctc_weight": 1.0},
            "best_model_criterion": [["valid", "loss", "min"]],
            "optim": "adam",
            "optim_conf": {"lr": 0.01},
        }

    return make


def _speech2text(exp, name="valid.loss.ave.pth") -> Any:
    from espnet2.bin.asr_inference import Speech2Text

    return Speech2Text(
        exp / "config.yaml", exp / name, ctc_weight=1.0, beam_size=2, maxlenratio=-4.0
    )


def test_statistics_see_a_fixed_lambda(ctc, run_train, upstream_dir):
    # ESPnet never calls eval() here, so dropout is on, but units are countable.
    counts = []
    for lam_train in ("uniform", None):
        conf = ctc(str(upstream_dir), lam_train=lam_train)
        exp = run_train(conf, "--collect_stats", "true", name=str(lam_train))
        counts.append(int(np.load(exp / "train" / "feats_stats.npz")["count"]))
    assert counts[0] == counts[1]


def test_train_mode_without_gradients_is_evaluation(upstream_conf):
    frontend = OFAFrontend(upstream_conf, lam=0.4, lam_train="uniform").train()
    wave = torch.randn(1, 8000), torch.tensor([8000])
    with torch.no_grad():
        frontend(*wave)
    assert frontend.stats()["lam"] == pytest.approx(0.4)


def test_statistics_can_skip_the_upstream(ctc, run_train):
    conf = ctc("exp/not/there")
    conf["model_conf"]["extract_feats_in_collect_stats"] = False
    exp = run_train(conf, "--collect_stats", "true")
    assert (exp / "train" / "speech_shape").is_file()


@pytest.mark.parametrize("way", ["yaml", "command line"])
def test_model_lives_without_the_training_directory(
    ctc, run_train, upstream_dir, corpus, tmp_path, way
):
    conf = ctc(str(upstream_dir))
    options = []
    if way == "command line":  # as asr.sh appends options
        del conf["frontend_conf"]["upstream"]
        options = ["--frontend_conf", f"upstream={upstream_dir}"]
        options += ["--frontend_conf", "fs=16k"]
    exp = run_train(conf, "--max_epoch", "2", *options)
    wave, _ = soundfile.read(corpus / "utt1.wav", dtype="float32")
    speech = torch.tensor(wave)[None], torch.tensor([len(wave)])
    before, _ = _speech2text(exp).asr_model.encode(*speech)

    shutil.rmtree(upstream_dir)
    moved = tmp_path / "moved"
    shutil.move(exp, moved)
    speech2text = _speech2text(moved)
    after, lengths = speech2text.asr_model.encode(*speech)
    torch.testing.assert_close(before, after)
    assert speech2text(wave)

    set_lam(speech2text.asr_model, 1.0)
    _, fewer = speech2text.asr_model.encode(*speech)
    assert fewer < lengths

    # Training on from this config must not start from noise in silence.
    recorded = yaml.safe_load((moved / "config.yaml").read_text())
    with pytest.raises(RuntimeError, match="no checkpoint was loaded"):
        run_train({**conf, "frontend_conf": recorded["frontend_conf"]}, name="again")
    run_train(
        {**conf, "frontend_conf": recorded["frontend_conf"]},
        "--init_param",
        str(moved / "valid.loss.ave.pth"),
        name="from_checkpoint",
    )


def test_config_only_upstream_from_a_file(ctc, run_train, upstream_conf, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(upstream_conf))
    exp = run_train(ctc(str(path)))
    conf = yaml.safe_load((exp / "config.yaml").read_text())["frontend_conf"]
    again = {**ctc(str(path)), "frontend_conf": conf}  # from its own config
    run_train(again, name="again")
    path.write_text(yaml.safe_dump({**upstream_conf, "layers": 1}))
    with pytest.raises(ValueError, match="tiny.yaml is not what .* has changed"):
        run_train(again, name="changed")
    path.unlink()
    run_train(again, name="gone")  # what it said is recorded
    _speech2text(exp)


def test_a_new_training_counts_its_own_updates(
    ctc, run_train, upstream_dir, monkeypatch
):
    conf = ctc(str(upstream_dir), freeze_updates=1)
    exp = run_train(conf)  # two steps: past the limit
    learns = []
    forward = OFAFrontend.forward

    def watched(self, *args):
        units, lengths = forward(self, *args)
        if torch.is_grad_enabled():
            learns.append(units.requires_grad)
        return units, lengths

    monkeypatch.setattr(OFAFrontend, "forward", watched)
    run_train(conf, "--max_epoch", "2", "--resume", "true")
    assert learns == [True, True]
    learns.clear()
    saved = str(exp / "1epoch.pth")
    run_train(conf, "--init_param", saved, name="from")
    assert learns == [False, True]


def test_missing_upstream_is_named(build):
    with pytest.raises(FileNotFoundError, match="exp/nowhere/at/all"):
        build(
            frontend="ofa",
            frontend_conf={"upstream": "exp/nowhere/at/all", "lam": 0.5},
        )


def test_resuming(ctc, run_train, upstream_dir):
    conf = ctc(str(upstream_dir), lam_train="uniform")
    run_train(conf)
    exp = run_train(conf, "--max_epoch", "2", "--resume", "true")
    assert (exp / "2epoch.pth").is_file()


@pytest.mark.parametrize("change", ["missing", "unexpected"])
@pytest.mark.parametrize("role", ["frontend", "preencoder", "encoder"])
def test_checkpoints_that_do_not_fit_name_the_keys(
    build, upstream_conf, tiny, role, change
):
    lam = {"lam": 0.5}
    own = {
        "frontend": {"upstream": upstream_conf},
        "preencoder": {"input_size": 80},
        "encoder": {"encoder": "transformer", "encoder_conf": tiny},
    }[role]
    model = build(**{role: "ofa", f"{role}_conf": {**own, **lam}})
    state = model.state_dict()
    model.load_state_dict(state, strict=False)
    key = next(k for k in state if k.startswith(f"{role}."))
    if change == "missing":
        del state[key]
    else:
        key = f"{role}.surplus.weight"
        state[key] = torch.zeros(1)
    with pytest.raises(ValueError, match=f"(?s){role}: ofa.*1 {change}: {key}"):
        model.load_state_dict(state, strict=False)


def test_set_lam_takes_one_value_an_utterance(build, batch, upstream_conf):
    model = build(
        frontend="ofa", frontend_conf={"upstream": upstream_conf, "lam": 0.5}
    ).eval()
    speech = batch["speech"], torch.tensor([16000, 16000])
    ends = []
    for lam in (0.0, 1.0):
        set_lam(model, lam)
        ends.append(model.encode(*speech)[1])
    set_lam(model, torch.tensor([0.0, 1.0]))
    _, lengths = model.encode(*speech)
    assert lengths.tolist() == [int(ends[0][0]), int(ends[1][1])]
    with pytest.raises(ValueError, match="compress"):
        set_lam(build(), 0.5)


def test_keys_avoid_what_espnet_renames(build, upstream_dir):
    model = build(
        frontend="ofa", frontend_conf={"upstream": str(upstream_dir), "lam": 0.5}
    )
    assert not any("frontend.upstream.model" in k for k in model.state_dict())


@pytest.mark.parametrize("role", ["frontend", "encoder"])
def test_checkpoint_holds_tensors_that_can_be_averaged(
    build, upstream_conf, tiny, role
):
    own = {
        "frontend": {"upstream": upstream_conf},
        "encoder": {"encoder": "conformer", "encoder_conf": tiny},
    }[role]
    model = build(
        model="ofa", **{role: "ofa", f"{role}_conf": {**own, "lam": "adaptive"}}
    )
    for key, value in model.state_dict().items():
        if key.startswith(f"{role}.") and not key.startswith("encoder.inner."):
            assert isinstance(value, torch.Tensor) and value.dim() > 0, key
            assert value.is_floating_point(), key


def test_learned_lambda_gets_no_weight_decay(build, upstream_conf):
    from espnet2.optimizers.optim_groups import configure_optimizer

    model = build(
        frontend="ofa", frontend_conf={"upstream": upstream_conf, "lam": "adaptive"}
    )
    optimizer = configure_optimizer(
        model, torch.optim.AdamW, {"lr": 0.001, "weight_decay": 0.1}, {}
    )
    raw = model.frontend.policy.learnable.raw
    (group,) = [g for g in optimizer.param_groups if any(p is raw for p in g["params"])]
    assert group["weight_decay"] == 0.0
    assert raw.shape == (1,)


@pytest.mark.parametrize("exclude", ["true", "false"])
def test_lambda_is_learned_by_espnets_trainer(ctc, run_train, upstream_dir, exclude):
    conf = ctc(str(upstream_dir))
    conf["model"] = "ofa"
    conf["frontend_conf"].update(lam="adaptive", lam_price=1000.0)
    exp = run_train(
        conf, "--max_epoch", "3", "--exclude_weight_decay", exclude, name=exclude
    )
    speech2text = _speech2text(exp)
    learned = speech2text.asr_model.frontend.policy.learnable.value().item()
    assert 0.55 < learned < 1.0
    # config.yaml still holds the start; the averaged checkpoint holds the truth.
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert config["frontend_conf"]["lam"] == "adaptive"


def test_freeze_param_freezes_lambda_too(ctc, run_train, upstream_dir):
    conf = ctc(str(upstream_dir), layer="weighted")
    conf["frontend_conf"]["lam"] = "adaptive"
    exp = run_train(conf, "--freeze_param", "frontend")
    model = _speech2text(exp).asr_model
    assert model.frontend.policy.learnable.value().item() == pytest.approx(0.5)


def test_learned_lambda_with_weight_decay_warns(build, upstream_conf, caplog):
    conf = {"upstream": upstream_conf, "lam": "adaptive"}
    with caplog.at_level(logging.WARNING):
        build(frontend="ofa", frontend_conf=conf, optim_conf={"weight_decay": 0.1})
    assert "exclude_weight_decay: true" in caplog.text


def test_half_precision_lengths(build, batch, upstream_conf):
    conf = {"upstream": upstream_conf, "lam": 0.8}
    model = build(frontend="ofa", frontend_conf=conf).eval()
    args = batch["speech"], batch["speech_lengths"]
    _, lengths = model.encode(*args)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, again = model.encode(*args)
    assert abs(lengths - again).max() <= 1 and torch.isfinite(out).all()


@pytest.mark.parametrize("model", ["espnet", "ofa"])
def test_a_spoiled_utterance_stops_our_command(
    ctc, run_train, upstream_dir, corpus, tmp_path, model
):
    from espnet_ofa.bin.asr_train import main

    wave, rate = soundfile.read(corpus / "utt4.wav")
    wave[3000] = np.nan
    spoiled = tmp_path / "spoiled.wav"
    soundfile.write(spoiled, wave, rate, "FLOAT")
    scp = (corpus / "wav.scp").read_text()
    (tmp_path / "wav.scp").write_text(scp.replace(f"{corpus}/utt4.wav", str(spoiled)))
    shutil.copy(corpus / "text", tmp_path)
    conf = {**ctc(str(upstream_dir)), "model": model}
    with pytest.raises(RuntimeError, match="Samples that are not finite: utt4. Repair"):
        run_train(conf, main=main, home=tmp_path)


def test_our_own_command_takes_espnets_options(capsys):
    from espnet_ofa.bin.asr_train import main

    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "--encoder_conf" in text and "ofa" in text
