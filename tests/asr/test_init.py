"""ESPnet's ``init:`` must not cost us alpha's bias, lambda or loaded weights."""

from __future__ import annotations

import math

import pytest
import torch
from espnet2.tasks.asr import ASRTask

from espnet_ofa.upstream import OFAUpstream


def _choices() -> list[str]:
    for action in ASRTask.get_parser()._actions:
        if action.dest == "init":
            return [c for c in action.choices or [] if c is not None]
    raise AssertionError("ESPnet has no --init")


INITS = _choices()
RATE = math.log((16 / 90) / (1 - 16 / 90))


def test_espnet_has_the_inits_we_know():
    assert {"xavier_uniform", "xavier_normal", "normal"} <= set(INITS)


@pytest.mark.parametrize("role", ["preencoder", "encoder"])
@pytest.mark.parametrize("init", INITS)
def test_inside(build, tiny, init, role):
    own = {
        "preencoder": {"input_size": 80},
        "encoder": {"encoder": "transformer", "encoder_conf": tiny},
    }[role]
    conf = {"lam": "adaptive", "lam_conf": {"init": 0.3}, "stem": 2, "stem_dim": 16}
    model = build(init=init, **{role: "ofa", f"{role}_conf": {**own, **conf}})
    part = getattr(model, role)
    assert part.policy.learnable.value().item() == pytest.approx(0.3, abs=1e-4)
    assert part.compressor.predictor.out.bias.item() == pytest.approx(RATE)
    alpha = part.compressor.predictor(torch.randn(1, 200, 16), torch.tensor([200]))
    assert alpha.mean().item() == pytest.approx(16 / 90, rel=0.15)
    # The rest is ESPnet's to initialise.
    inner = model.encoder.inner if role == "encoder" else model.encoder
    assert inner.encoders[0].feed_forward.w_1.bias.abs().sum() == 0


@pytest.mark.parametrize("init", INITS)
def test_loaded_weights(build, batch, upstream_dir, init):
    model = build(
        init=init,
        frontend="ofa",
        frontend_conf={
            "upstream": str(upstream_dir),
            "lam": "adaptive",
            "layer": "weighted",
        },
    )
    saved = OFAUpstream.from_pretrained(upstream_dir).state_dict()
    own = model.frontend.upstream.state_dict()
    for key, value in saved.items():
        assert torch.equal(own[key], value), key
    assert model.frontend.layer_weights.abs().sum() == 0
    assert model.frontend.policy.learnable.value().item() == pytest.approx(0.5)
    model(**batch)
    assert model.frontend.init_keeper._kept == []  # memory is given back
