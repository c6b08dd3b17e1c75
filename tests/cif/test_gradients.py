"""Analytic gradients against finite differences, and their convention at ties."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from espnet_ofa.cif import integrate_and_fire

seeds = st.integers(0, 10**6)


def distance_to_fires(weights, threshold=1.0) -> float:
    """Smallest distance of the cumulative mass to a multiple of the threshold."""
    mass = weights.double().cumsum(1) / threshold
    return (mass - mass.round()).abs().min().item()


@settings(deadline=None, max_examples=10)
@given(
    kind=st.sampled_from(["plain", "heavy", "light"]),
    seed=seeds,
    threshold=st.sampled_from([1.0, 0.7]),
    num_units=st.sampled_from([None, 2]),
)
def test_gradcheck(make_case, kind, seed, threshold, num_units):
    frames, weights, lengths = make_case(seed, kind, 9, 2, dtype=torch.float64)
    assume(distance_to_fires(weights, threshold) > 1e-3)

    def units(frames, weights):
        return integrate_and_fire(
            frames, weights, lengths,
            threshold=threshold, num_units=num_units,
        ).units  # fmt: skip

    inputs = frames.requires_grad_(), weights.requires_grad_()
    assert torch.autograd.gradcheck(units, inputs)


def test_the_tail_scale_carries_gradient():
    """A tail unit is a mean: more weight pulls it to its frame, no further."""
    frames = torch.tensor([[[1.0], [2.0], [5.0]]])
    weights = torch.tensor([[1.0, 0.3, 0.3]], requires_grad=True)
    integrate_and_fire(frames, weights).units[0, 1].sum().backward()
    # unit = (.3 x 2 + .3 x 5) / .6; its derivative by its own weights is
    # (x - unit) / .6. More weight on the first frame moves that frame into the tail.
    want = torch.tensor([[-2.5, -1.5, 1.5]]) / 0.6
    torch.testing.assert_close(weights.grad, want)


@pytest.mark.parametrize("name", ["reference", "eager"])
def test_at_a_tie_the_open_unit_takes_the_gradient(name):
    frames = torch.tensor([[[1.0], [3.0], [7.0], [20.0]]])
    weights = torch.full((1, 4), 0.5, requires_grad=True)
    units = integrate_and_fire(frames, weights, backend=name).units[0, :, 0]
    (units * torch.tensor([10.0, 1.0])).sum().backward()
    # dL/dC: unit 0 is open after frame 0, unit 1 after frames 1 and 2, none after 3.
    moved = torch.tensor([10.0 * (1 - 3), 3 - 7, 7 - 20, 0])
    want = moved.flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(weights.grad, want[None])


def test_a_dropped_tail_has_no_gradient(backend):
    frames = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
    frames.requires_grad_()
    weights = torch.tensor([[0.6, 0.6, 0.1, 0.1]], requires_grad=True)
    out = integrate_and_fire(frames, weights, backend=backend)
    out.units.sum().backward()
    assert weights.grad is not None and frames.grad is not None
    assert (weights.grad[0, 1:] == 0).all() and weights.grad[0, 0] != 0
    assert (frames.grad[0, 2:] == 0).all()


def test_an_utterance_without_mass_gives_weights_no_gradient(backend):
    frames = torch.ones(1, 4, 2, requires_grad=True)
    weights = torch.zeros(1, 4, requires_grad=True)
    out = integrate_and_fire(frames, weights, backend=backend)
    out.units.sum().backward()
    assert weights.grad is not None and frames.grad is not None
    assert torch.equal(weights.grad, torch.zeros(1, 4))
    assert torch.equal(frames.grad, torch.full((1, 4, 2), 0.25))


@pytest.mark.parametrize("wanted", ["frames", "weights"])
def test_one_gradient_alone_is_the_same(make_case, backend, wanted):
    frames, weights, lengths = make_case(2, "plain")
    both = {"frames": frames.clone(), "weights": weights.clone()}
    for tensor in both.values():
        tensor.requires_grad_()
    alone = {"frames": frames.clone(), "weights": weights.clone()}
    alone[wanted].requires_grad_()
    for inputs in (both, alone):
        out = integrate_and_fire(**inputs, lengths=lengths, backend=backend)
        out.units.square().sum().backward()
    torch.testing.assert_close(alone[wanted].grad, both[wanted].grad)


def test_a_second_derivative_is_refused(make_case, backend):
    frames, weights, lengths = make_case(2, "plain")
    frames.requires_grad_()
    weights.requires_grad_()
    out = integrate_and_fire(frames, weights, lengths, backend=backend)
    grads = torch.autograd.grad(
        out.units.square().sum(), (frames, weights), create_graph=True
    )
    for grad in grads:
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad.sum().backward(retain_graph=True)
