"""``frontend: ofa``: lengths, layers, freezing, masking."""

from __future__ import annotations

import pytest
import torch

from espnet_ofa.asr.frontend import OFAFrontend
from espnet_ofa.subsampling import (
    LamSampler,
    LamUnsetError,
    SqueezeUnsetError,
    set_squeeze,
)
from espnet_ofa.upstream import OFAUpstream


@pytest.fixture
def wave():
    return torch.randn(2, 16000), torch.tensor([16000, 9000])


def test_units_and_lengths_are_the_upstreams(upstream_dir, wave):
    frontend = OFAFrontend(str(upstream_dir), lam=0.9).eval()
    expected = OFAUpstream.from_pretrained(upstream_dir)(*wave, lam=0.9)
    units, lengths = frontend(*wave)
    torch.testing.assert_close(units, expected.hidden_states[-1])
    assert lengths.tolist() == expected.lengths.tolist()
    assert units.shape == (2, int(lengths.max()), frontend.output_size())
    period = frontend.stats()["period_ms"]
    pooled = 20 * expected.frame_lengths.sum() / expected.lengths.sum()
    torch.testing.assert_close(period, pooled)


@pytest.mark.parametrize("compressor", ["cif", "none"])
def test_upstream_of_chunks(upstream_conf, wave, compressor):
    conf = {**upstream_conf, "chunk": {"ms": 160, "left": 1}, "norm_first": True}
    conf["compressor"] = compressor
    lam = 0.9 if compressor == "cif" else None
    frontend = OFAFrontend(conf, lam=lam).eval()
    expected = frontend.upstream(*wave)
    units, lengths = frontend(*wave)
    assert lengths.tolist() == expected.lengths.tolist()
    torch.testing.assert_close(units, expected.hidden_states[-1])


def test_same_alone_and_in_a_padded_batch(upstream_conf, wave):
    frontend = OFAFrontend(upstream_conf, lam=0.8).eval()
    units, lengths = frontend(*wave)
    alone, n = frontend(wave[0][1:, :9000], wave[1][1:])
    assert int(n) == int(lengths[1]) < int(lengths[0])
    torch.testing.assert_close(units[1, : int(n)], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layer", [0, 1, 2, -1, -3])
def test_layer(upstream_dir, wave, layer):
    frontend = OFAFrontend(str(upstream_dir), lam=0.5, layer=layer).eval()
    states = OFAUpstream.from_pretrained(upstream_dir)(*wave, lam=0.5).hidden_states
    torch.testing.assert_close(frontend(*wave)[0], states[layer])
    unused = sum(not p.requires_grad for p in frontend.parameters())
    assert (unused > 0) == (layer not in (2, -1))


def test_weighted_sum_starts_as_the_mean_and_learns(upstream_conf, wave):
    frontend = OFAFrontend(upstream_conf, lam=0.5, layer="weighted")
    frontend.eval()
    states = frontend.upstream(*wave).hidden_states
    units = frontend(*wave)[0]
    torch.testing.assert_close(units, torch.stack(states).mean(0))
    units.square().sum().backward()
    grad = dict(frontend.named_parameters())["layer_weights"].grad
    assert grad is not None and grad.abs().sum() > 0


def test_wrong_layer_and_rate(upstream_conf):
    with pytest.raises(ValueError, match="layer must be"):
        OFAFrontend(upstream_conf, lam=0.5, layer=3)
    with pytest.raises(ValueError, match="16000 Hz.*8k"):
        OFAFrontend(upstream_conf, lam=0.5, fs="8k")
    assert OFAFrontend(upstream_conf, lam=0.5, fs="16k").output_size() == 16


def test_frozen_weights_and_live_lambda(upstream_conf, wave):
    conf = {**upstream_conf, "dropout": 0.5}
    frontend = OFAFrontend(conf, lam="adaptive", freeze=True).train()
    assert not frontend.upstream.transformer.training
    torch.testing.assert_close(frontend(*wave)[0], frontend(*wave)[0])  # no dropout
    frontend(*wave)[0].square().sum().backward()
    live = {n: p.grad for n, p in frontend.named_parameters() if p.requires_grad}
    assert list(live) == ["upstream.policy.learnable.raw"]
    (grad,) = live.values()
    assert grad is not None and grad.abs() > 0


def test_frozen_weights_and_sampled_lambda(upstream_conf, wave):
    frontend = OFAFrontend(upstream_conf, lam=0.5, lam_train="uniform", freeze=True)
    frontend.train()
    drawn = {float((frontend(*wave), frontend.stats()["lam"])[1]) for _ in range(4)}
    assert len(drawn) == 4
    frontend.eval()
    frontend(*wave)
    assert frontend.stats()["lam"] == 0.5


@pytest.mark.parametrize("conf", [{}, {"target_rate": 0.4}])
def test_periods_are_drawn_up_to_that_of_lambda_one(upstream_conf, conf):
    upstream = {**upstream_conf, "compressor_conf": conf}
    frontend = OFAFrontend(upstream, lam_train="uniform_period", seed=3)
    rate = conf.get("target_rate", 2 / 9)
    wanted = LamSampler("uniform_period", 3, mean_alpha=rate)
    assert [frontend.policy() for _ in range(3)] == [wanted() for _ in range(3)]


def test_time_mask_is_in_ms_and_only_in_training(upstream_conf, wave):
    frontend = OFAFrontend(
        upstream_conf, lam=0.0, time_mask={"num": 2, "max_ms": 100}
    ).eval()
    plain, _ = frontend.upstream.extract(*wave)
    torch.testing.assert_close(frontend(*wave)[0], frontend(*wave)[0])
    lengths = frontend.upstream.frame_lengths(wave[1])
    blanked = 0
    for _ in range(20):
        masked = frontend.time_mask(plain, lengths)
        gone = (masked == 0).all(-1)
        assert gone.sum(1).max() <= 2 * (100 / 20 + 1)
        torch.testing.assert_close(masked[~gone], plain[~gone])
        blanked += int(gone.sum())
    assert blanked > 0
    with pytest.raises(ValueError, match="time_mask must be"):
        OFAFrontend(upstream_conf, lam=0.0, time_mask={"width": 3})


def test_masks_are_within_each_utterance(upstream_conf):
    frontend = OFAFrontend(upstream_conf, lam=0.0, time_mask={"num": 1, "max_ms": 100})
    frames, lengths = torch.ones(2, 200, 16), torch.tensor([200, 10])
    masked = torch.stack([frontend.time_mask(frames, lengths) for _ in range(60)])
    gone = (masked == 0).all(-1)  # (60, 2, 200)
    assert not gone[:, 1, 10:].any()
    # In most draws something of both is masked, wherever it is.
    assert (gone.any(2).sum(0) > 40).all()
    assert gone[:, 1, :10].any(0).all() and gone[:, 0].any(0).sum() > 50


def test_a_mask_longer_than_the_utterance_is_dropped(upstream_conf):
    frontend = OFAFrontend(upstream_conf, lam=0.0, time_mask={"num": 1, "max_ms": 2000})
    frames, lengths = torch.ones(2, 200, 16), torch.tensor([200, 10])
    masked = torch.stack([frontend.time_mask(frames, lengths) for _ in range(60)])
    left = (masked != 0).all(-1)
    short = left[:, 1, :10].sum(1)  # in each draw
    assert short.min() > 0 and (short == 10).sum() > 40
    assert (~left[:, 0]).any(1).sum() > 50  # the other one has its masks


def test_mask_never_takes_the_whole_utterance(upstream_conf):
    frontend = OFAFrontend(upstream_conf, lam=0.0, time_mask={"num": 3, "max_ms": 5000})
    frames, lengths = frontend.upstream.extract(
        torch.randn(1, 3000), torch.tensor([3000])
    )
    for _ in range(20):
        assert frontend.time_mask(frames, lengths).abs().sum() > 0


def test_unset_lambda_is_an_error_never_a_draw(upstream_conf, wave):
    frontend = OFAFrontend(upstream_conf, lam_train="uniform").eval()
    with pytest.raises(LamUnsetError):
        frontend(*wave)


def test_an_upstream_that_changed_is_not_mistaken(upstream_dir, upstream_conf):
    recorded = OFAUpstream.from_pretrained(upstream_dir).config.to_dict()
    OFAFrontend(str(upstream_dir), lam=0.5, upstream_config=recorded)
    with pytest.raises(ValueError, match="upstream has changed"):
        OFAFrontend(
            str(upstream_dir), lam=0.5, upstream_config={**recorded, "layers": 3}
        )


def test_every_parameter_gets_a_gradient_at_lambda_zero(upstream_conf, wave):
    # What data-parallel training needs, without find_unused_parameters.
    for layer in (-1, 1, "weighted"):
        frontend = OFAFrontend(upstream_conf, lam=0.0, layer=layer).train()
        frontend(*wave)[0].sum().backward()
        for name, p in frontend.named_parameters():
            assert p.grad is not None or not p.requires_grad, name


def test_the_upstream_waits_for_the_head(upstream_dir, wave):
    frontend = OFAFrontend(str(upstream_dir), lam=0.5, freeze_updates=2).train()
    learns = []
    for _ in range(4):
        units, _ = frontend(*wave)
        learns.append(units.requires_grad)
    assert learns == [False, False, True, True]
    resumed = OFAFrontend(str(upstream_dir), lam=0.5, freeze_updates=6).train()
    resumed.load_state_dict(frontend.state_dict())
    assert [resumed(*wave)[0].requires_grad for _ in range(3)] == [False, False, True]
    assert frontend.eval()(*wave)[0].shape == units.shape


# -- squeeze, up-sampling, merging -----------------------------------------------------


@pytest.fixture
def stochastic_conf(upstream_conf):
    return {
        **upstream_conf,
        "compressor": "squeeze",
        "compressor_conf": {"factor": [1, 2, 3], "kernel": 4, "groups": 2},
        "pos_kernel": 0,
        "query_pool": [1, 2],
        "key_pool": [1, 2],
        "upsampler": True,
    }


def periods(frontend, wave, steps):
    return {
        float((frontend(*wave), frontend.stats()["period_ms"])[1]) for _ in range(steps)
    }


@pytest.mark.parametrize("freeze", [False, True])
def test_a_stochastic_upstream_draws_or_is_fine_tuned(stochastic_conf, wave, freeze):
    options = {"squeeze": "2,1,2", "freeze": freeze}
    drawing = OFAFrontend(stochastic_conf, squeeze_train="uniform", **options).train()
    assert len(periods(drawing, wave, 20)) == 3
    fixed = OFAFrontend(stochastic_conf, **options).train()
    (period,) = periods(fixed, wave, 3)
    assert periods(drawing.eval(), wave, 3) == {period}
    set_squeeze(drawing, (3, 2, 1))
    units, lengths = drawing(*wave)
    assert lengths.tolist() == [17, 9] and units.shape[1] == 17


def test_squeeze_must_be_set_and_make_sense(stochastic_conf, upstream_conf, wave):
    frontend = OFAFrontend(stochastic_conf, squeeze_train="uniform").eval()
    with pytest.raises(SqueezeUnsetError):
        frontend(*wave)
    with pytest.raises(ValueError, match="this one has one setting"):
        OFAFrontend(upstream_conf, lam=0.5, squeeze=2)


def test_upsampled_units_are_frames_again(stochastic_conf, upstream_conf, wave):
    for conf, options in (
        (stochastic_conf, {"squeeze": 3}),
        ({**upstream_conf, "dropout": 0.0}, {"lam": 0.8}),
    ):
        frontend = OFAFrontend(conf, upsample=True, **options).train()
        out, lengths = frontend(*wave)
        assert out.shape == (2, 49, 16) and lengths.tolist() == [49, 27]
        assert frontend.take_durations().sum(1).tolist() == [49, 27]
        assert frontend.stats()["period_ms"] > 25  # what the upstream ran at
        out.square().sum().backward()
        assert all(p.grad is not None for p in frontend.parameters() if p.requires_grad)
        waits = OFAFrontend(conf, upsample=True, freeze_updates=1, **options).train()
        learns = [waits(*wave)[0].requires_grad for _ in range(2)]
        assert learns == [False, True]


def test_the_upsampler_waits_below_a_learned_average(stochastic_conf, wave):
    frontend = OFAFrontend(
        stochastic_conf, squeeze=2, layer="weighted", upsample=True, freeze_updates=1
    ).train()
    for expected in ({"layer_weights"}, None):
        frontend(*wave)[0].square().sum().backward()
        learn = {n for n, p in frontend.named_parameters() if p.grad is not None}
        trained = {n for n, p in frontend.named_parameters() if p.requires_grad}
        assert learn == (expected or trained)


def test_units_alone_leave_the_upsampler_out(stochastic_conf, wave):
    frontend = OFAFrontend(stochastic_conf, squeeze=2).train()
    frontend(*wave)[0].square().sum().backward()
    idle = {n for n, p in frontend.named_parameters() if p.grad is None}
    assert idle == {n for n, p in frontend.named_parameters() if not p.requires_grad}
    assert idle and all("upsampler" in n for n in idle)


def test_a_learned_lambda_needs_one_squeeze(stochastic_conf):
    conf = {**stochastic_conf, "compressor": "cif", "compressor_conf": {}}
    conf = {**conf, "query_pool": [1, 2], "key_pool": [1, 2], "upsampler": False}
    with pytest.raises(ValueError, match="needs one squeeze: remove squeeze_train"):
        OFAFrontend(conf, lam="adaptive", squeeze=[1, 2, 1], squeeze_train="uniform")


@pytest.mark.parametrize("layer", [-1, "weighted"])
def test_merged_units_carry_their_durations(upstream_dir, wave, layer):
    merge = {"layers": [0], "ratio": 0.5}
    frontend = OFAFrontend(str(upstream_dir), lam=0.0, merge=merge, layer=layer).eval()
    units, lengths = frontend(*wave)
    assert lengths.tolist() == [25, 14] and units.shape[1] == 25
    durations = frontend.take_durations()
    assert durations.sum(1).tolist() == [49, 27]
    assert torch.equal(durations, frontend.upstream(*wave).durations)
    assert torch.equal(durations > 0, torch.arange(25) < lengths[:, None])
    torch.testing.assert_close(
        frontend.stats()["period_ms"], torch.tensor(20 * 76 / 39)
    )
    alone, n = frontend(wave[0][1:, :9000], wave[1][1:])
    torch.testing.assert_close(units[1, : int(n)], alone[0], atol=1e-5, rtol=1e-4)
