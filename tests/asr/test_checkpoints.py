"""With ``model: ofa``, a checkpoint that lacks or adds any key is an error."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import yaml
from espnet2.tasks.asr import ASRTask

DECODER = {"num_blocks": 1, "linear_units": 16, "attention_heads": 2}


@pytest.fixture
def conf(tiny):
    """A joint model behind encoder: ofa, of which training keeps two epochs."""
    return {
        "model": "ofa",
        "encoder": "ofa",
        "encoder_conf": {
            "encoder": "transformer",
            "encoder_conf": {**tiny, "num_blocks": 1},
            "stem_dim": 16,
            "lam": 0.6,
            "lam_train": "uniform",
        },
        "decoder": "transformer",
        "decoder_conf": DECODER,
        "model_conf": {"ctc_weight": 0.3},
        "best_model_criterion": [["valid", "acc", "max"]],
        "keep_nbest_models": 2,
        "optim": "adam",
    }


def _load(exp, name="valid.acc.ave.pth") -> Any:
    model, _ = ASRTask.build_model_from_file(exp / "config.yaml", exp / name)
    return model


def test_espnets_own_flows(conf, run_train):
    exp = run_train(conf)
    exp = run_train(conf, "--max_epoch", "2", "--resume", "true")
    assert (exp / "valid.acc.ave_2best.pth").is_file()  # averaged
    _load(exp)
    saved = str(exp / "valid.acc.ave.pth")
    for part in ("", ":encoder:encoder", ":decoder:decoder:decoder.embed"):
        run_train(conf, "--init_param", saved + part, name="from")
    # A model of another shape takes what fits.
    narrow = {**conf, "decoder": "rnn", "decoder_conf": {}}
    options = ("--init_param", f"{saved}:encoder:encoder")
    run_train(narrow, *options, "--ignore_init_mismatch", "true", name="narrow")


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("ctc", "ctc.ctc_lo.weight"),
        ("decoder", "decoder.after_norm.bias"),
        ("encoder", "encoder.compressor.predictor.out.bias"),
    ],
)
def test_a_misfit_names_its_keys(conf, run_train, part, key):
    exp = run_train(conf)
    path = exp / "1epoch.pth"
    state = torch.load(path, weights_only=True)
    value = state.pop(key)
    state[f"{part}.surplus"] = value
    state["posterior.surplus"] = value
    torch.save(state, path)
    surplus = f"2 unexpected: {part}.surplus, posterior.surplus"
    with pytest.raises(
        ValueError, match=f"{path} does not .*1 missing: {key}; {surplus}"
    ):
        _load(exp, "1epoch.pth")
    with pytest.raises(
        ValueError, match=f"{surplus}.* --init_param"
    ):  # keys that nothing takes
        run_train(conf, "--init_param", str(path), name="from")


def test_another_config_is_told_in_a_few_words(conf, run_train):
    exp = run_train(conf)
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config.update(decoder=None, model_conf={"ctc_weight": 1.0})
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match="unexpected: decoder") as e:
        _load(exp, "1epoch.pth")
    found = re.search(r"(\d+) unexpected: .* and (\d+) more", str(e.value))
    assert found and int(found[1]) == int(found[2]) + 10
    assert str(e.value).count("decoder.") == 10
    assert "config.yaml" in str(e.value) and "--init_param" not in str(e.value)


@pytest.mark.parametrize("lost", ["ctc.ctc_lo.weight", "encoder.policy.draws"])
def test_adapters_may_be_saved_alone(build, conf, lost):
    """ESPnet's --save_strategy leaves out what it can build again, not what is ours."""
    model = build(**conf, use_adapter=True, save_strategy="required_grad_only")
    state = model.state_dict()
    del state[lost]
    if lost.startswith("ctc"):
        model.load_state_dict(state, strict=False)
    else:
        with pytest.raises(ValueError, match=f"1 missing: {lost}"):
            model.load_state_dict(state, strict=False)
