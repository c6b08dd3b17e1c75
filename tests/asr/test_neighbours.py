"""What our parts learn from the rest of a config, and what they say about it."""

from __future__ import annotations

import logging

import pytest
import torch

from espnet_ofa.asr.preencoder import OFAPreEncoder


def _warnings(caplog):
    return [r.message for r in caplog.records if "espnet_ofa" in r.name]


def test_subsampling_behind_a_compressor_warns(build, tiny, caplog):
    pre = {"input_size": 80, "lam": 0.5}
    with caplog.at_level(logging.WARNING):
        build(preencoder="ofa", preencoder_conf=pre, encoder_conf=tiny)
    (message,) = _warnings(caplog)
    assert "input_layer: conv2d" in message and "input_layer: linear" in message
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        build(preencoder="ofa", preencoder_conf=pre)  # input_layer: linear
    assert _warnings(caplog) == []


@pytest.mark.parametrize("role", ["preencoder", "encoder"])
def test_frame_ms_is_the_frontends(build, tiny, role):
    conf = {
        "preencoder": {"input_size": 80, "lam": 0.5},
        "encoder": {"encoder": "transformer", "encoder_conf": tiny, "lam": 0.5},
    }[role]
    confs = {role: "ofa", f"{role}_conf": conf}
    confs["frontend_conf"] = {"hop_length": 320, "fs": "16k"}
    assert getattr(build(**confs), role).frame_ms == 20.0
    assert conf.pop("frame_ms") == 20.0  # in the config that training leaves behind
    conf["frame_ms"] = 8
    with pytest.raises(
        ValueError, match=rf"{role}_conf: frame_ms is 8, .* every 20 ms"
    ):
        build(**confs)


def test_frame_ms_of_a_frontend_that_does_not_tell(build):
    pre = {"input_size": 80, "lam": 0.5, "frame_ms": 20}
    cnn = {"norm_mode": "layer_norm", "conv_mode": "standard", "bias": True}
    cnn["shapes"] = [[8, 10, 5], [8, 8, 4], [80, 8, 8]]  # 160 samples
    confs = {"frontend": "wav2vec_cnn", "frontend_conf": cnn, "preencoder": "ofa"}
    with pytest.raises(ValueError, match="frame_ms is 20.*wav2vec_cnn.*every 10 ms"):
        build(**confs, preencoder_conf=pre)
    del pre["frame_ms"]
    random = torch.get_rng_state()
    frontend = build(**confs, preencoder_conf=pre).frontend
    assert frontend.training and pre["frame_ms"] == 10.0
    torch.set_rng_state(random)  # looking at the frontend drew nothing
    again = build(**confs, preencoder_conf=pre).state_dict()
    torch.set_rng_state(random)
    del pre["frame_ms"]
    for name, tensor in build(**confs, preencoder_conf=pre).state_dict().items():
        assert torch.equal(tensor, again[name]), name


@pytest.mark.parametrize("first", ["frontend", "preencoder"])
def test_lambda_enters_once(build, tiny, upstream_conf, first):
    own = {"frontend": {"upstream": upstream_conf}, "preencoder": {"input_size": 80}}
    confs = {
        first: "ofa",
        f"{first}_conf": {**own[first], "lam": 1.0},
        "encoder": "ofa",
        "encoder_conf": {"encoder": "transformer", "encoder_conf": tiny, "lam": 0.5},
    }
    with pytest.raises(ValueError, match=f"{first} and encoder are both.*enters once"):
        build(**confs)


def test_global_statistics_and_specaug_warn(build, upstream_conf, caplog, tmp_path):
    import numpy as np

    np.savez(tmp_path / "s.npz", count=2, sum=np.ones(16), sum_square=np.ones(16))
    with caplog.at_level(logging.WARNING):
        build(
            frontend="ofa",
            frontend_conf={"upstream": upstream_conf, "lam": 0.5},
            normalize="global_mvn",
            normalize_conf={"stats_file": str(tmp_path / "s.npz")},
            specaug="specaug",
            specaug_conf={"time_mask_width_range": [0, 4]},
        )
    first, second = _warnings(caplog)
    assert "utterance_mvn" in first and "time_mask" in second


@pytest.mark.parametrize(("hop", "stride"), [(160, (1, 2)), (256, (1, 1))])
def test_stem_follows_the_frontends_hop(build, tiny, hop, stride):
    conf = {"encoder": "transformer", "encoder_conf": tiny, "lam": 0.0}
    model = build(
        encoder="ofa", encoder_conf=conf, frontend_conf={"hop_length": hop}
    ).eval()
    assert model.encoder.stem.strides == stride
    model.encode(torch.randn(1, 16000), torch.tensor([16000]))
    # Lambda starts near the 20 ms it is made for.
    assert model.encoder.stats()["period_ms"].item() == pytest.approx(20, abs=4.5)


@pytest.mark.parametrize("role", ["preencoder", "encoder"])
def test_lambda_at_evaluation_is_asked_for_before_training(build, tiny, role):
    own = {"input_size": 80}
    if role == "encoder":
        own = {"encoder": "transformer", "encoder_conf": tiny}
    conf = {role: "ofa", f"{role}_conf": {**own, "lam_train": "uniform"}}
    with pytest.raises(ValueError, match=f"{role}_conf: set lam: the value at eval"):
        build(**conf)
    OFAPreEncoder(80, lam_train="uniform")  # outside ESPnet anybody may set it later

    def build_model_from_file():
        return build(**conf)

    build_model_from_file()  # nor is there anything to train


@pytest.mark.parametrize("role", ["frontend", "preencoder", "encoder"])
def test_draws_follow_the_seed_of_the_training(build, tiny, upstream_conf, role):
    own = {
        "frontend": {"upstream": upstream_conf},
        "preencoder": {"input_size": 80},
        "encoder": {"encoder": "transformer", "encoder_conf": tiny},
    }[role]
    own = {**own, "lam": 0.5, "lam_train": "uniform"}

    def first_draw(training_seed, **more):
        conf = {role: "ofa", f"{role}_conf": {**own, **more}}
        return getattr(build(**conf, seed=training_seed), role).policy.draw()

    drawn = [first_draw(seed) for seed in (0, 1)]
    assert drawn[0] != drawn[1]
    assert [first_draw(1, seed=0), first_draw(0, seed=1)] == drawn
