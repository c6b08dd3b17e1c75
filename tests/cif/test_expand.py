"""Units back to frames."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_ofa.cif import expand, integrate_and_fire

kinds = st.sampled_from(["plain", "ties", "zeros", "heavy", "light"])


@settings(deadline=None, max_examples=40)
@given(kind=kinds, seed=st.integers(0, 10**6), size=st.sampled_from([1, 7, 300, 3000]))
def test_constant_units_give_constant_frames(make_case, kind, seed, size):
    frames, weights, lengths = make_case(seed, kind, size)
    out = integrate_and_fire(frames, weights, lengths)
    units = torch.full_like(out.units, 2.0)
    back = expand(units, out.durations, size + 2)
    real = torch.arange(size + 2) < lengths[:, None]
    want = torch.where(real, 2.0, 0.0)[..., None].expand_as(back)
    torch.testing.assert_close(back, want)


def test_a_frame_blends_the_units_that_cover_it():
    units = torch.tensor([[[10.0], [20.0], [40.0]], [[7.0], [9.0], [torch.nan]]])
    durations = torch.tensor([[1.5, 2.25, 0.25], [1.0, 2.0, 0.0]])
    got = expand(units, durations, 4)[..., 0]
    want = torch.tensor([[10, 15, 20, 0.75 * 20 + 0.25 * 40], [7, 9, 9, 0]])
    torch.testing.assert_close(got, want)


def test_frames_beyond_num_frames_are_cut_off():
    units, durations = torch.tensor([[[1.0], [5.0]]]), torch.tensor([[1.5, 4.5]])
    got = expand(units, durations, 2)
    torch.testing.assert_close(got[0, :, 0], torch.tensor([1.0, 3.0]))


def test_weights_of_one_come_back_bit_exact(make_case):
    frames, weights, _ = make_case(0, "plain", 30)
    out = integrate_and_fire(frames, torch.ones_like(weights))
    assert torch.equal(expand(out.units, out.durations, 30), frames)


def test_gradient_reaches_units_and_not_durations(make_case):
    frames, weights, lengths = make_case(3, "plain", 9, dtype=torch.float64)
    out = integrate_and_fire(frames, weights, lengths)
    units = out.units.detach().requires_grad_()
    durations = out.durations.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda u: expand(u, durations, 9), (units,))
    expand(units, durations, 9).sum().backward()
    assert durations.grad is None and units.grad is not None
    # A unit lasts as long as its duration: that is its weight in the sum of frames.
    torch.testing.assert_close(units.grad[..., 0], out.durations)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_dtype_is_that_of_the_units(dtype):
    with torch.autocast("cpu", torch.bfloat16):
        back = expand(torch.ones(1, 2, 3, dtype=dtype), torch.full((1, 2), 1.5), 3)
    assert back.dtype == dtype and (back == 1).all()
