"""The SSL model: what it learns, what it counts, and what padding must not change."""

import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from espnet_ofa.pretrain.masked import draw_frame_mask
from espnet_ofa.pretrain.model import MaskedPredictionModel
from espnet_ofa.subsampling import LamPolicy
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig

CODES = 6


SQUEEZE = {"factor": 2, "kernel": 5, "groups": 2}


def make(lam=0.5, lam_train=None, compressor="cif", conf=None, shape=None, **options):
    torch.manual_seed(0)
    config = UpstreamConfig(
        extractor="logmel",
        extractor_conf={"dim": 16, "mels": 20},
        compressor=compressor,
        compressor_conf=conf or {},
        dim=16,
        layers=1,
        heads=2,
        ff_dim=32,
        pos_kernel=3,
        pos_groups=1,
        norm_first=True,
        dropout=0.0,
        attention_dropout=0.0,
        **(shape or {}),
    )
    upstream = OFAUpstream(config, LamPolicy(lam, lam_train))
    return MaskedPredictionModel(upstream, CODES, **options)


def batch(seed=0):
    """Two utterances of noise bursts, whose loudness pattern is their code."""
    gen = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([400 + 320 * 49, 400 + 320 * 29])
    frames = torch.tensor([50, 30])
    targets = torch.full((2, 50), -1)
    wave = torch.zeros(2, int(lengths[0]))
    for row in range(2):
        codes = torch.randint(0, CODES, (10,), generator=gen).repeat_interleave(5)
        targets[row, : frames[row]] = codes[: frames[row]]
        t = torch.arange(320) / 16000
        for s in range(int(frames[row])):
            tone = torch.sin(2 * torch.pi * (300 + 500 * codes[s]) * t)
            wave[row, 320 * s : 320 * (s + 1)] = tone
    wave += 0.01 * torch.randn(wave.shape, generator=gen)
    return {
        "speech": wave,
        "speech_lengths": lengths,
        "targets": targets,
        "targets_lengths": frames,
    }


SEGMENTS = {
    "boundaries": torch.tensor(
        [[5, 10, 15, 20, 25, 30, 35, 40, 45, 50], [5, 10, 15, 20, 25, 30] + 4 * [-1]]
    ),
    "boundaries_lengths": torch.tensor([10, 6]),
}


def test_it_learns_to_name_masked_frames():
    model = make(lam_train="uniform", mask_share=0.3, mask_span_ms=60)
    data = batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    first = None
    for _ in range(300):
        loss, stats, _ = model(**data)
        first = first if first is not None else stats["acc_clear"].item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        stats = model(**data)[1]
    assert stats["acc_clear"] > max(3 / CODES, first + 0.25)
    assert stats["acc_masked"] > 1.5 / CODES


def test_every_parameter_gets_a_gradient():
    model = make(lam=0.0)  # even at lambda 0, where alpha does not matter
    loss, _, _ = model(**batch(), **SEGMENTS)
    loss.backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert missing == []


def test_the_extractor_gets_a_share_of_the_gradient():
    gradients = {}
    for factor in (1.0, 0.1):
        model = make(lam=0.5, feature_grad_mult=factor)
        torch.manual_seed(0)  # of the mask
        model(**batch(), **SEGMENTS)[0].backward()
        gradients[factor] = {n: p.grad for n, p in model.named_parameters()}
    for name, whole in gradients[1.0].items():
        scale = 0.1 if name.startswith("upstream.extractor.") else 1.0
        torch.testing.assert_close(gradients[0.1][name], scale * whole, msg=name)
    assert any(n.startswith("upstream.extractor.") for n in gradients[1.0])
    with torch.no_grad():
        make(feature_grad_mult=0.1)(**batch())


def test_segments_replace_the_cardinality_loss():
    model = make()
    without = model(**batch())[1]
    with_segments = model(**batch(), **SEGMENTS)[1]
    assert "loss_cardinality" in without and "loss_segment" not in without
    assert "loss_segment" in with_segments and "loss_cardinality" not in with_segments


@pytest.mark.parametrize("conf", [{}, {"target_rate": 0.1}, {"target_rate": 0.5}])
def test_without_segments_the_configs_rate_is_the_target(conf):
    model = make(conf=conf)
    with torch.no_grad():
        model.upstream.compressor.predictor.out.bias += 1.0
    stats, target = model(**batch())[1], conf.get("target_rate", 2 / 9)
    wanted = (stats["mean_alpha"] - target).abs() / target
    torch.testing.assert_close(stats["loss_cardinality"], wanted)
    assert wanted > 0.2


def test_guidance_brings_the_rate_to_the_segments():
    conf = {"target_rate": 0.5}
    model = make(lam=1.0, conf=conf, segment_weight=1.0, frame_weight=5.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss, stats, _ = model(**batch(), **SEGMENTS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # Segments of five frames: alpha 1/5 and 100 ms, from 1/2 and 40 ms.
    assert stats["mean_alpha"].item() == pytest.approx(0.2, rel=0.15)
    model.eval()
    assert model(**batch(), **SEGMENTS)[1]["period_ms"].item() == pytest.approx(
        100, rel=0.15
    )


def test_a_compressor_without_alpha_has_no_guidance():
    model = make(compressor="mean", conf={"factor": 2}, lam=None)
    loss, stats, _ = model(**batch())
    assert torch.isfinite(loss)
    assert stats["period_ms"].item() == pytest.approx(40, rel=0.01)
    assert "mean_alpha" not in stats


@pytest.mark.parametrize("upsampler", [False, True])
def test_a_squeeze_is_masked_in_front_of_it(upsampler):
    model = make(None, None, "squeeze", SQUEEZE, {"upsampler": upsampler}).eval()
    n_frames = torch.tensor([20, 13])
    frames, other = torch.randn(2, 2, 20, 16)
    out = model.upstream.compress(frames, n_frames)
    unit_mask = torch.zeros(2, 10, dtype=torch.bool)
    unit_mask[:, 2:6] = True
    masked = model._mask(out, frames, n_frames, unit_mask)
    other = torch.where(unit_mask.repeat_interleave(2, 1)[..., None], other, frames)
    again = model._mask(out, other, n_frames, unit_mask)
    assert torch.equal(masked.units, again.units)  # nothing leaks
    # What the kernel sees of clear frames tells a masked unit where it is.
    assert (masked.units[0, 2] - masked.units[0, 3]).abs().max() > 1e-3
    loss, stats, _ = model(**batch())
    assert torch.isfinite(loss)
    assert ("acc_ceiling" in stats) != upsampler  # slots may differ within a unit


def test_merged_units_count_in_the_period():
    shape = {"merge": {"layers": [0], "ratio": 0.5}}
    model = make(None, None, "none", shape=shape)
    loss, stats, _ = model(**batch())
    loss.backward()
    assert stats["period_ms"].item() == pytest.approx(40, rel=0.01)
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("codes", "ceiling"), [([0, 0, 1, 1, 2, 2, 3], 1.0), ([0, 1] * 4, 0.5)]
)
def test_ceiling_is_the_share_of_majority_codes_under_masks(codes, ceiling):
    # Units of two frames, all alike: whichever are masked, the share is the same.
    model = make(compressor="mean", conf={"factor": 2}, lam=None).eval()
    wave = torch.randn(1, 400 + 320 * (len(codes) - 1))
    samples, frames = torch.tensor([wave.shape[1]]), torch.tensor([len(codes)])
    with torch.no_grad():
        stats = model(wave, samples, torch.tensor([codes]), frames)[1]
    assert stats["acc_ceiling"].item() == pytest.approx(ceiling)


def sandwich(lam_train="uniform", **options):
    return make(lam_train=lam_train, sandwich=1.0, clear_weight=0.5, **options)


def test_a_sandwich_trains_everything_and_draws_once():
    model = sandwich()
    loss, stats, _ = model(**batch(), **SEGMENTS)
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert model.upstream.policy.sampler.step == 1
    assert stats["period_ms"] == 20 and stats["loss_pull"] > 0  # codes at lambda 0
    weights = {"masked": 1.0, "clear": 0.5, "pull": 2.0, "segment": 0.05, "frame": 0.5}
    wanted = sum(weight * stats[f"loss_{part}"] for part, weight in weights.items())
    torch.testing.assert_close(loss, wanted)
    model.eval()
    plain = make(lam_train="uniform", clear_weight=0.5).eval()
    plain.load_state_dict(model.state_dict())
    torch.manual_seed(3)
    wanted = plain(**batch())[1]
    torch.manual_seed(3)
    found = model(**batch())[1]
    assert found == wanted  # of one lambda, that of validation


def test_only_lambda_0_sees_the_codes():
    model, data = sandwich(), batch()
    other = {**data, "targets": (data["targets"] + 1) % CODES}
    pulls, losses = [], []
    for x in (data, other):
        model.upstream.policy.sampler.step = 0
        torch.manual_seed(4)
        stats = model(**x)[1]
        pulls.append(stats["loss_pull"])
        losses.append(stats["loss_masked"])
    assert pulls[0] == pulls[1] and losses[0] != losses[1]


def two_looks():
    """A sandwich, and what it says of a masked batch at lambda 0 and at 0.8."""
    model = sandwich(mask_span_ms=100)
    frames, n_frames = torch.randn(2, 30, 16), torch.tensor([30, 22])
    mask = draw_frame_mask(n_frames, 30, 100, 0.4)
    return model, *(model._predict(frames, n_frames, mask, x) for x in (0.0, 0.8))


def test_clear_frames_are_pulled_at_their_weight():
    model, teacher, student = two_looks()
    said = [Categorical(logits=x.logits) for x in (teacher, student)]
    divergence = kl_divergence(*said)
    masked = divergence[student.masked & teacher.masked].mean()
    clear = divergence[student.clear & teacher.clear].mean()
    torch.testing.assert_close(model._pull(student, teacher), masked + 0.5 * clear)


def test_lambda_0_is_not_pulled():
    model, teacher, student = two_looks()
    assert model._pull(teacher, teacher) == 0
    teacher.logits.retain_grad()
    student.logits.retain_grad()
    model._pull(student, teacher).backward()
    assert teacher.logits.grad is None
    grad = student.logits.grad
    told = (student.masked & teacher.masked) | (student.clear & teacher.clear)
    assert torch.equal(grad.abs().sum(-1) > 0, told)
    assert not told[1, 22:].any()


def test_a_sandwich_hands_down_what_lambda_0_knows():
    model = sandwich(lam_train=1.0, mask_share=0.3, mask_span_ms=60)
    data = batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss, stats, _ = model(**data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.upstream.policy.set(1.0)
    with torch.no_grad():
        stats = model.eval()(**data)[1]
    assert stats["period_ms"] > 60
    assert stats["acc_clear"] > 0.6 * stats["acc_ceiling"] > 2 / CODES


def test_a_sandwich_wants_lambda():
    with pytest.raises(ValueError, match="sandwich needs compressor: cif; mean"):
        make(None, compressor="mean", conf={"factor": 2}, sandwich=1.0)


def test_told_of_its_rate_it_trains():
    model = make(lam_train="uniform", shape={"condition": ["durations", "lam"]})
    model(**batch(), **SEGMENTS)[0].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("compressor", "conf", "shape"),
    [
        ("cif", {}, {}),
        ("mean", {"factor": 3}, {}),
        ("squeeze", SQUEEZE, {"upsampler": True}),
        ("none", {}, {"merge": {"layers": [0], "ratio": 0.3}}),
    ],
)
@pytest.mark.parametrize("segments", [False, True])
def test_padding_has_no_part_in_training(
    compressor, conf, shape, segments, monkeypatch
):
    lam = 0.5 if compressor == "cif" else None
    model = make(lam, None, compressor, conf, shape, clear_weight=0.5)
    frames = torch.arange(60)
    mask = (frames % 12 < 6) & (frames < torch.tensor([[50], [30]]))  # 120 ms spans
    monkeypatch.setattr(
        "espnet_ofa.pretrain.model.draw_frame_mask", lambda n, size, *_: mask[:, :size]
    )
    data = batch() | (SEGMENTS if segments else {})
    wide = data | {
        "speech": F.pad(data["speech"], (0, 3200), value=9.0),
        "targets": F.pad(data["targets"], (0, 10), value=-1),
    }
    wide["speech"][1, int(data["speech_lengths"][1]) :] = 9.0
    counted, gradients = [], []
    for given in (data, wide):
        model.zero_grad()
        loss, stats, _ = model(**given)
        loss.backward()
        counted.append({k: v.detach() for k, v in stats.items() if v is not None})
        gradients.append(
            {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        )
    assert len(gradients[0]) > 10 and "loss_masked" in counted[0]
    torch.testing.assert_close(*counted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
