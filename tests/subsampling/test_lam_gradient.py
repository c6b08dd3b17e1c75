"""Law 7: d(loss)/d(lam) equals finite differences in float64, where units stay."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from espnet_ofa.cif import integrate_and_fire
from espnet_ofa.cif.plan import accumulate
from espnet_ofa.subsampling import LearnableLam, compress_weights

STEP = 1e-6
LENGTHS = torch.tensor([20, 13, 1])
seeds = st.integers(0, 10**6)
lams = st.floats(0.05, 1.9).filter(lambda lam: abs(lam - 1) > 0.01)  # test_the_kink


def utterances(seed) -> tuple[Tensor, Tensor]:
    """Float64 frames (3, 20, 4) and alpha (3, 20)."""
    random = torch.Generator().manual_seed(seed)
    frames = torch.randn(3, 20, 4, generator=random, dtype=torch.float64)
    return frames, torch.rand(3, 20, generator=random, dtype=torch.float64)


def fires_and_losses(seed, lam) -> tuple[Tensor, Tensor]:
    """Units after each frame (3, 21), and a loss per utterance (3,)."""
    frames, alpha = utterances(seed)
    weights = compress_weights(alpha, lam)
    out = integrate_and_fire(frames, weights, LENGTHS)
    losses = out.units.square().sum((1, 2)) + out.units[:, 0].sum(1)
    return accumulate(weights, LENGTHS, 1.0).fires, losses


def slopes(seed, lam: Tensor) -> Tensor:
    """(3,) finite differences of the losses; gives up where a fire moves."""
    (before, low), (after, high) = (
        fires_and_losses(seed, lam.detach() + step) for step in (-STEP, STEP)
    )
    assume(torch.equal(before, after))
    return (high - low) / (2 * STEP)


def test_the_kink():
    """At lambda 1 the gradient is that of the side below."""
    alpha = torch.full((1, 4), 0.3, dtype=torch.float64)
    knob = torch.ones(1, dtype=torch.float64, requires_grad=True)
    compress_weights(alpha, knob).sum().backward()
    left, here, right = (
        compress_weights(alpha, 1 + step).sum() for step in (-STEP, 0, STEP)
    )
    assert knob.grad is not None
    slope = knob.grad.item()
    assert slope == pytest.approx(((here - left) / STEP).item())
    assert slope < (right - here) / STEP < 0


@given(seed=seeds, lam=lams, shape=st.sampled_from([(), (1,)]))
def test_one_lambda(seed, lam, shape):
    knob = torch.full(shape, lam, dtype=torch.float64, requires_grad=True)
    want = slopes(seed, knob).sum()
    (found,) = torch.autograd.grad(fires_and_losses(seed, knob)[1].sum(), knob)
    torch.testing.assert_close(found.sum(), want, rtol=1e-4, atol=1e-6)


@given(seed=seeds, lam=st.tuples(lams, lams, lams))
def test_one_lambda_per_utterance(seed, lam):
    knob = torch.tensor(lam, dtype=torch.float64, requires_grad=True)
    want = slopes(seed, knob)
    (found,) = torch.autograd.grad(fires_and_losses(seed, knob)[1].sum(), knob)
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6)


@given(
    seed=seeds, share=st.floats(0.05, 0.95), bounds=st.sampled_from([(0, 1), (1, 2)])
)
def test_a_learned_lambda(seed, share, bounds):
    low, high = bounds
    learned = LearnableLam(low + (high - low) * share, low, high).double()
    want = slopes(seed, learned.value()).sum().item()
    fires_and_losses(seed, learned.value())[1].sum().backward()

    with torch.no_grad():  # the last link, from the parameter to lambda
        values = []
        for sign in (-1, 2):
            learned.raw.add_(sign * STEP)
            values.append(learned.value().item())
    want *= (values[1] - values[0]) / (2 * STEP) / learned.speed  # a learning rate
    assert learned.raw.grad is not None
    assert learned.raw.grad.item() == pytest.approx(want, rel=1e-3, abs=1e-5)
