"""Laws of the operator that hold for every input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_ofa.cif import integrate_and_fire

kinds = st.sampled_from(["plain", "ties", "zeros", "heavy", "light"])
seeds = st.integers(0, 10**6)
few = settings(deadline=None, max_examples=25)


def test_weights_of_one_leave_frames_bit_exact(make_case, backend):
    frames, weights, lengths = make_case(1, "plain", 50)
    out = integrate_and_fire(frames, torch.ones_like(weights), lengths, backend=backend)
    assert out.lengths.tolist() == lengths.tolist()
    for b, length in enumerate(lengths.tolist()):
        assert torch.equal(out.units[b, :length], frames[b, :length])
        assert torch.equal(out.durations[b, :length], torch.ones(length))


@few
@given(kind=kinds, seed=seeds, num_units=st.sampled_from([None, 2, 40]))
def test_durations_sum_to_the_frames(make_case, kind, seed, num_units):
    frames, weights, lengths = make_case(seed, kind, 30)
    out = integrate_and_fire(frames, weights, lengths, num_units=num_units)
    torch.testing.assert_close(out.durations.sum(1), lengths.float())
    assert (out.durations >= 0).all() and not out.durations.requires_grad


@few
@given(kind=kinds, seed=seeds, threshold=st.sampled_from([1.0, 0.6, 3.0]))
def test_every_unit_weighs_the_threshold(make_case, kind, seed, threshold):
    _, weights, lengths = make_case(seed, kind, 30)
    ones = torch.ones(*weights.shape, 1)
    out = integrate_and_fire(ones, weights, lengths, threshold=threshold)
    real = torch.arange(out.units.size(1)) < out.lengths[:, None]
    want = torch.where(real, threshold, 0.0)
    torch.testing.assert_close(out.units[..., 0], want)


@few
@given(kind=kinds, seed=seeds)
def test_no_mass_is_lost_but_a_dropped_tail(make_case, kind, seed):
    """With fired units alone, sum of units = sum of weighted frames less the tail."""
    frames, weights, _ = make_case(seed, kind, 30, dtype=torch.float64)
    out = integrate_and_fire(frames, weights, tail_threshold=1.0)
    total = weights.sum(1)
    for b, count in enumerate(out.lengths.tolist()):
        if total[b] < 1:
            continue
        left = total[b] - count  # dropped, off the end of the line
        kept = weights[b].flip(0)
        kept = (kept - (left - (kept.cumsum(0) - kept)).clamp(min=0)).clamp(min=0)
        want = kept.flip(0) @ frames[b]
        torch.testing.assert_close(out.units[b].sum(0), want, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=10)
@given(kind=kinds, seed=seeds, junk=st.sampled_from([0.0, 1e30, torch.nan, torch.inf]))
def test_padding_counts_nothing(make_case, backend, kind, seed, junk):
    """An utterance gives the same units and gradients alone and in a batch."""
    frames, weights, lengths = make_case(seed, kind, 9)
    padding = torch.arange(9) >= lengths[:, None]
    frames = frames.masked_fill(padding[..., None], junk).requires_grad_()
    weights = weights.masked_fill(padding, junk).requires_grad_()
    out = integrate_and_fire(frames, weights, lengths, backend=backend)
    slope = torch.arange(1.0, 1 + out.units.size(1))[None, :, None]
    grads = torch.autograd.grad((out.units * slope).sum(), (frames, weights))
    assert not out.units.isnan().any()
    for grad in grads:
        assert (grad[padding] == 0).all()

    for b, length in enumerate(lengths.tolist()):
        x = frames[b : b + 1, :length].detach().requires_grad_()
        w = weights[b : b + 1, :length].detach().requires_grad_()
        alone = integrate_and_fire(x, w, backend=backend)
        count = alone.lengths.item()
        assert count == out.lengths[b] and (out.units[b, count:] == 0).all()
        loss = (alone.units * slope[:, :count]).sum()
        for got, want in zip(
            (out.units[b, :count], out.durations[b, :count], *(g[b] for g in grads)),
            (alone.units, alone.durations, *torch.autograd.grad(loss, (x, w))),
            strict=True,
        ):
            got = got[: want.size(1)]
            torch.testing.assert_close(got, want[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1e-9, 0.2, 0.5, 1.0, 2.0, 3.7])
def test_one_frame(backend, weight):
    frames = torch.tensor([[[3.0, -1.0]]])
    out = integrate_and_fire(frames, torch.tensor([[weight]]), backend=backend)
    count = max(1, int(weight + 0.5))
    torch.testing.assert_close(out.units, frames.expand(1, count, 2))
    torch.testing.assert_close(out.durations.sum(), torch.tensor(1.0))


def test_a_zero_weight_frame_belongs_to_the_open_unit(backend):
    weights = torch.tensor([[0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.75, 0.0, 0.25, 0.0]])
    frames = torch.randn(1, 10, 2, generator=torch.Generator().manual_seed(0))
    out = integrate_and_fire(frames, weights, backend=backend)
    assert out.durations.tolist() == [[4.0, 6.0]]
    torch.testing.assert_close(out.units[0, 0], frames[0, 2:4].mean(0))


def test_a_heavy_frame_fires_several_times(backend):
    frames = torch.tensor([[[1.0], [2.0], [3.0]]])
    weights = torch.tensor([[0.5, 3.0, 0.5]])
    out = integrate_and_fire(frames, weights, backend=backend)
    torch.testing.assert_close(out.units[0, :, 0], torch.tensor([1.5, 2.0, 2.0, 2.5]))
    third = 1 / 3
    want = torch.tensor([1 + third / 2, third, third, 1 + third / 2])
    torch.testing.assert_close(out.durations[0], want)


@pytest.mark.parametrize("mixed", [False, True])
def test_autocast_shifts_no_length(make_case, backend, mixed):
    frames, weights, lengths = make_case(5, "plain", 60)
    want = integrate_and_fire(frames, weights, lengths, backend=backend)
    if mixed:
        frames = frames.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        got = integrate_and_fire(frames, weights, lengths, backend=backend)
    assert got.units.dtype == frames.dtype
    assert torch.equal(got.lengths, want.lengths)
    assert torch.equal(got.durations, want.durations)
    if not mixed:
        assert torch.equal(got.units, want.units)
