"""Every backend equals the reference: values, gradients, and lengths exactly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from espnet_ofa.cif import CIFOutput, integrate_and_fire

KINDS = ["plain", "ties", "zeros", "heavy", "light"]
kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 10**6)


def run(case, backend, seed=0, **options) -> tuple[CIFOutput, Tensor, Tensor]:
    """Output and the gradients of frames and weights for a random loss."""
    frames = case.frames.clone().requires_grad_()
    weights = case.weights.clone().requires_grad_()
    out = integrate_and_fire(frames, weights, case.lengths, backend=backend, **options)
    random = torch.Generator().manual_seed(seed)
    slope = torch.randn(out.units.shape, generator=random).to(out.units.dtype)
    # The reference does not touch the weights of an utterance without mass.
    frames_grad, weights_grad = torch.autograd.grad(
        (out.units * slope).sum(),
        (frames, weights),
        allow_unused=True,
        materialize_grads=True,
    )
    return out, frames_grad, weights_grad


def assert_same(got, want, atol: float) -> None:
    out, frames_grad, weights_grad = got
    want_out, want_frames_grad, want_weights_grad = want
    assert out.lengths.tolist() == want_out.lengths.tolist()
    assert out.merged.tolist() == want_out.merged.tolist()
    assert out.lengths.dtype == torch.int64 and out.merged.dtype == torch.bool
    close = torch.testing.assert_close
    close(out.units, want_out.units, atol=atol, rtol=atol)
    close(out.durations, want_out.durations, atol=1e-5, rtol=1e-5)
    close(frames_grad, want_frames_grad, atol=atol, rtol=atol)
    # Gradients of weights are sums over all later frames: their scale is the batch's.
    scale = 1 + want_weights_grad.abs().max().item()
    close(weights_grad, want_weights_grad, atol=atol * scale, rtol=atol)


@settings(deadline=None, max_examples=60)
@given(
    kind=kinds,
    seed=seeds,
    size=st.integers(1, 24),
    threshold=st.sampled_from([1.0, 0.7, 2.5]),
    tail_threshold=st.sampled_from([0.5, 0.1, 1.0]),
    num_units=st.sampled_from([None, None, 1, 2, 5, 60]),
)
def test_eager_equals_reference(
    make_case, kind, seed, size, threshold, tail_threshold, num_units
):
    case = make_case(seed, kind, size)
    options = {
        "threshold": threshold,
        "tail_threshold": tail_threshold,
        "num_units": num_units,
    }
    want = run(case, "reference", seed, **options)
    assert_same(run(case, "eager", seed, **options), want, 2e-5)


@settings(deadline=None, max_examples=12)
@given(kind=kinds, seed=seeds, num_units=st.sampled_from([None, 3]))
def test_every_backend_equals_reference(make_case, backend, kind, seed, num_units):
    case = make_case(seed, kind, 10)
    want = run(case, "reference", seed, num_units=num_units)
    assert_same(run(case, backend, seed, num_units=num_units), want, 2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_equals_reference(make_case, backend, dtype, kind):
    case = make_case(7, kind, 20, dtype=dtype)
    got, want = run(case, backend), run(case, "reference")
    assert got[0].units.dtype == dtype
    tolerance = {torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float64: 1e-9}[dtype]
    assert_same(got, want, tolerance)


def test_low_precision_frames_are_mixed_in_fp32(backend):
    """A unit of 2,000 bf16 frames: adding up in bf16 would stall far from the sum."""
    frames = torch.full((1, 2000, 3), 1.0, dtype=torch.bfloat16)
    weights = torch.full((1, 2000), 1 / 2048)
    units = integrate_and_fire(frames, weights, backend=backend).units
    torch.testing.assert_close(units, torch.ones_like(units), atol=0, rtol=2**-8)


@pytest.mark.parametrize("dim", [1024, 1025, 2050])
@pytest.mark.parametrize("kind", ["plain", "heavy"])
def test_wide_frames_take_several_blocks(make_case, backend, kind, dim):
    """A kernel's program holds 256 elements of a frame."""
    case = make_case(4, kind, 7, rows=2, dim=dim)
    assert_same(run(case, backend), run(case, "reference"), 2e-5)


@pytest.mark.parametrize("whole", [1, 2, 3, 5, 6, 7, 10, 13, 25, 49, 100])
def test_exact_ties_up_to_3000_frames(whole):
    """Weights 1/n: the rounded sum may fall short of one, the unit still fires."""
    size = 3000 // whole * whole
    frames = torch.randn(1, size, 2, generator=torch.Generator().manual_seed(whole))
    weights = torch.full((1, size), 1 / whole)
    out = integrate_and_fire(frames, weights)
    assert out.lengths.tolist() == [size // whole]
    first = frames[:, :whole].mean(1)
    torch.testing.assert_close(out.units[:, 0], first, atol=1e-5, rtol=1e-5)
    # fp32 may round 1/n up, never by enough for the next frame to take part.
    assert out.durations[0, 0].item() == pytest.approx(whole, rel=1e-6)


@settings(deadline=None, max_examples=6)
@given(kind=kinds, seed=seeds)
def test_lengths_equal_reference_up_to_3000_frames(make_case, kind, seed):
    case = make_case(seed, kind, 3000, rows=2)
    got = integrate_and_fire(*case)
    want = integrate_and_fire(*case, backend="reference")
    assert got.lengths.tolist() == want.lengths.tolist()
    torch.testing.assert_close(got.units, want.units, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got.durations, want.durations, atol=1e-3, rtol=1e-4)


def test_non_contiguous_input(make_case, backend):
    case = make_case(3, "plain", 15)
    want = run(case, backend)
    apart = case._replace(
        frames=case.frames.transpose(1, 2).contiguous().transpose(1, 2),
        weights=torch.stack([case.weights, case.weights], 2)[..., 0],
    )
    assert not (apart.frames.is_contiguous() or apart.weights.is_contiguous())
    for a, b in zip(run(apart, backend), want, strict=True):
        torch.testing.assert_close(a, b)


def test_a_threshold_that_is_no_binary_fraction(make_case):
    """Unit boundaries in fp32 would be off by 1e-5 after a hundred units."""
    frames, weights, lengths = make_case(1, "heavy", 400, dim=2)
    want = integrate_and_fire(
        frames, weights, lengths, threshold=0.7, backend="reference"
    )
    out = integrate_and_fire(frames, weights, lengths, threshold=0.7, backend="eager")
    assert torch.equal(out.lengths, want.lengths)
    torch.testing.assert_close(out.units, want.units.float(), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(
        out.durations, want.durations.float(), atol=2e-5, rtol=1e-5
    )
