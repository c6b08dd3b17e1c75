"""Compressors: true lengths, durations that add up, padding that changes nothing."""

import pytest
import torch

from espnet_ofa.subsampling import build_compressor
from espnet_ofa.subsampling.compressor import _hold_rate
from espnet_ofa.subsampling.lengths import subsampled_lengths, valid_mask

DIM = 6
KINDS = [
    ("none", {}),
    ("mean", {"factor": 1}),
    ("mean", {"factor": 3}),
    ("conv", {"factor": 4}),
    ("squeeze", {"factor": 3, "kernel": 5, "groups": 2}),
    ("squeeze", {"factor": 2, "kernel": 8, "groups": 1}),
    ("cif", {}),
    ("cif", {"threshold": 0.8, "hidden": 4}),
]


def make(kind, conf, seed=0):
    torch.manual_seed(seed)
    return build_compressor(kind, DIM, **conf).eval()


@pytest.mark.parametrize(("kind", "conf"), KINDS)
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.3])
def test_padding_never_changes_a_result(kind, conf, lam):
    compressor = make(kind, conf)
    lengths = torch.tensor([37, 1, 20])
    frames = torch.randn(3, 37, DIM)
    frames[~valid_mask(lengths, 37)] = float("nan")
    frames[1, 1:] = 1e30
    batch = compressor(frames, lengths, lam)
    for row, n in enumerate(lengths.tolist()):
        alone = compressor(frames[row : row + 1, :n], lengths[row : row + 1], lam)
        u = int(alone.lengths)
        assert int(batch.lengths[row]) == u == alone.units.shape[1]
        torch.testing.assert_close(
            batch.units[row, :u], alone.units[0], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(("kind", "conf"), KINDS)
@pytest.mark.parametrize("lam", [0.0, 0.6])
@pytest.mark.parametrize("training", [True, False])
def test_an_empty_utterance_is_named(kind, conf, lam, training):
    compressor, frames = make(kind, conf).train(training), torch.randn(2, 24, DIM)
    with pytest.raises(ValueError, match="row 1 is empty"):
        compressor(frames, torch.tensor([24, 0]), lam)
    with pytest.raises(ValueError, match="row 0 has length 25, but only 24 frames"):
        compressor(frames, torch.tensor([25, 3]), lam)
    out = compressor(frames, torch.tensor([24, 0]), lam, 30)  # nobody looks
    assert out.lengths[1] == 0 and (out.durations[1] == 0).all()


@pytest.mark.parametrize(("kind", "conf"), KINDS)
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.3])
def test_durations_sum_to_the_frames(kind, conf, lam):
    lengths = torch.tensor([40, 3, 17])
    out = make(kind, conf)(torch.randn(3, 40, DIM), lengths, lam)
    torch.testing.assert_close(out.durations.sum(1), lengths.float())
    assert torch.all(out.durations[~valid_mask(out.lengths, out.units.shape[1])] == 0)


def test_mean_is_the_mean_of_whole_and_partial_windows():
    frames = torch.arange(7.0)[None, :, None].repeat(1, 1, DIM)
    out = make("mean", {"factor": 3})(frames, torch.tensor([7]))
    assert out.units[0, :, 0].tolist() == [1.0, 4.0, 6.0]
    assert out.durations.tolist() == [[3.0, 3.0, 1.0]]


@pytest.mark.parametrize(("kernel", "factor"), [(5, 1), (5, 2), (4, 3)])
def test_a_squeeze_is_a_strided_position_embedding_beside_the_mean(kernel, factor):
    frames, lengths = torch.randn(1, 17, DIM), torch.tensor([17])
    squeeze = make("squeeze", {"factor": factor, "kernel": kernel, "groups": 2})
    whole = squeeze.position(frames, lengths) - frames  # what a stride of 1 adds
    mean = make("mean", {"factor": factor})(frames, lengths)
    out = squeeze(frames, lengths)
    torch.testing.assert_close(out.units, mean.units + whole[:, ::factor])
    assert torch.equal(out.durations, mean.durations)


def test_a_squeeze_of_several_factors_needs_someone_to_choose():
    squeeze = make("squeeze", {"factor": [2, 4], "kernel": 3, "groups": 1})
    frames, lengths = torch.randn(1, 9, DIM), torch.tensor([9])
    with pytest.raises(ValueError, match=r"several factors \[2, 4\] needs an upstream"):
        squeeze(frames, lengths)
    squeeze.choose = lambda: 4
    assert squeeze(frames, lengths).durations.tolist() == [[4.0, 4.0, 1.0]]


@pytest.mark.parametrize("length", range(1, 30))
@pytest.mark.parametrize("factor", [1, 2, 5])
def test_lengths_are_those_of_the_output(length, factor):
    frames = torch.randn(1, length, DIM)
    small = {"kernel": 4, "groups": 1}
    for kind, conf in (("mean", {}), ("conv", {}), ("squeeze", small)):
        out = make(kind, {"factor": factor, **conf})(frames, torch.tensor([length]))
        assert out.units.shape[1] == int(out.lengths)
        assert int(subsampled_lengths(torch.tensor(length), factor)) == int(out.lengths)


@pytest.mark.parametrize("training", [True, False])
def test_lambda_zero_leaves_frames_bit_exact(training):
    frames, lengths = torch.randn(2, 30, DIM), torch.tensor([30, 12])
    out = make("cif", {}).train(training)(frames, lengths, 0.0)
    assert torch.equal(out.units[0], frames[0])
    assert torch.equal(out.units[1, :12], frames[1, :12])
    assert out.lengths.tolist() == [30, 12]


def test_predictor_gets_a_gradient_at_lambda_zero():
    compressor = make("cif", {}).train()
    out = compressor(torch.randn(2, 30, DIM), torch.tensor([30, 12]), 0.0)
    out.units.square().sum().backward()
    assert all(p.grad is not None for p in compressor.parameters())


@pytest.mark.parametrize("rate_gradient", [False, True])
def test_descent_keeps_the_rate(rate_gradient):
    torch.manual_seed(0)
    logits = (torch.randn(1, 40, dtype=torch.float64) - 1).requires_grad_()
    pull = torch.rand(1, 40, dtype=torch.float64)  # a task that wants fewer units
    hold = (lambda a: a) if rate_gradient else _hold_rate
    start = torch.sigmoid(logits).mean().item()
    first = torch.sigmoid(logits).detach().clone()
    for _ in range(200):
        (grad,) = torch.autograd.grad(
            (hold(torch.sigmoid(logits)) * pull).sum(), logits
        )
        with torch.no_grad():
            logits -= 0.05 * grad
    moved = (torch.sigmoid(logits) - first).abs().mean().item()
    drift = abs(torch.sigmoid(logits).mean().item() / start - 1)
    assert moved > 0.01
    assert (drift < 0.01) != rate_gradient


@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_anchor_undoes_what_adam_leaves(anchored, sign):
    torch.manual_seed(0)
    compressor = make("cif", {}).train()
    compressor.anchored = anchored
    adam = torch.optim.Adam(compressor.parameters(), lr=2e-3)
    lengths = torch.tensor([60, 60, 33, 7])
    rates = []
    for _ in range(200):
        frames = torch.randn(4, 60, DIM)
        out = compressor(frames, lengths, 1.0)
        adam.zero_grad()
        # A task that can tell the frames it wants more weight of, or less.
        (out.weights * (sign * frames[..., 0]).exp()).sum().backward()
        adam.step()
        rates.append(float(out.alpha.sum().detach() / lengths.sum()))
    rate = sum(rates[-20:]) / 20
    assert (abs(rate / compressor.predictor.target_rate - 1) < 0.1) == anchored


def test_the_anchor_rests_in_evaluation():
    compressor = make("cif", {}).train()
    frames, lengths = torch.randn(2, 30, DIM) * 5, torch.tensor([30, 12])
    with torch.no_grad():
        compressor(frames, lengths, 1.0)  # statistics: train mode, no gradients
    compressor.eval()(frames, lengths, 1.0)
    assert not compressor.predictor.offset.any()
    compressor.train()(frames, lengths, 1.0)
    assert compressor.predictor.offset.any()


@pytest.mark.parametrize("rate_gradient", [False, True])
def test_the_task_moves_units_but_not_their_number(rate_gradient):
    compressor = make("cif", {"rate_gradient": rate_gradient}).train()
    frames, lengths = torch.randn(2, 50, DIM), torch.tensor([50, 31])
    seen = {}

    def keep(alpha, lengths):
        alpha.retain_grad()
        seen["alpha"] = alpha
        return 0.7

    out = compressor(frames, lengths, keep)
    torch.testing.assert_close(out.weights, 0.3 + 0.7 * seen["alpha"])
    (out.units * torch.randn(DIM)).square().sum().backward()
    grad, alpha = seen["alpha"].grad, seen["alpha"].detach()
    assert grad.abs().max() > 1e-3
    slope = (alpha * (1 - alpha)).square()
    for row, n in enumerate(lengths.tolist()):  # first-order change of the sum
        change = (grad[row, :n].double() * slope[row, :n].double()).sum()
        assert (change.abs().item() < 1e-5) != rate_gradient


def test_fresh_predictor_starts_at_the_target_rate():
    for rate in (0.1, 2 / 9, 0.5):
        compressor = make("cif", {"target_rate": rate})
        out = compressor(torch.randn(4, 400, DIM), torch.full((4,), 400), 1.0)
        assert out.alpha.mean().item() == pytest.approx(rate, rel=0.1)
        period = 20 * 400 / out.lengths.float().mean().item()
        assert period == pytest.approx(20 / rate, rel=0.12)


def test_lambda_is_monotonic_in_the_period():
    compressor, lengths = make("cif", {}), torch.tensor([500])
    frames = torch.randn(1, 500, DIM)
    units = [
        int(compressor(frames, lengths, lam).lengths)
        for lam in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 1.9)
    ]
    assert units == sorted(units, reverse=True)
    assert len(set(units)) == len(units)


def test_one_lambda_per_utterance_and_rules():
    compressor, lengths = make("cif", {}), torch.tensor([60, 60])
    frames = torch.randn(1, 60, DIM).repeat(2, 1, 1)
    lam = torch.tensor([0.2, 0.9])
    direct = compressor(frames, lengths, lam)
    assert direct.lengths[0] > direct.lengths[1]
    rule = compressor(frames, lengths, lambda alpha, n: lam if len(n) == 2 else 0.0)
    assert torch.equal(rule.units, direct.units)


def test_bf16_autocast_does_not_move_fires():
    compressor = make("cif", {})
    frames, lengths = torch.randn(3, 300, DIM), torch.tensor([300, 211, 97])
    plain = compressor(frames, lengths, 0.8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = compressor(frames, lengths, 0.8)
    assert torch.equal(plain.lengths, mixed.lengths)
    assert mixed.weights.dtype == torch.float32


def test_bad_names_and_factors():
    with pytest.raises(ValueError, match="none, mean, conv, cif"):
        build_compressor("cfi", DIM)
    for kind in ("mean", "conv", "squeeze"):
        with pytest.raises(ValueError, match="factor"):
            build_compressor(kind, DIM, factor=0)
    with pytest.raises(ValueError, match="target_rate"):
        build_compressor("cif", DIM, target_rate=0.0)
    with pytest.raises(ValueError, match="odd"):
        build_compressor("cif", DIM, kernel=4)
