"""Other implementations compute the same, or a comparison would say nothing."""

import importlib.util

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_ofa.bench.baselines import find_baselines
from espnet_ofa.cif import integrate_and_fire

BASELINES, NOTES = find_baselines()


@pytest.mark.parametrize("name", BASELINES)
@given(
    frames=st.integers(8, 60), heaviest=st.floats(0.3, 0.9), seed=st.integers(0, 999)
)
def test_units_that_fire_are_ours(name, frames, heaviest, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(2, frames, 3, dtype=torch.float64, generator=rng)
    weights = heaviest * torch.rand(2, frames, dtype=torch.float64, generator=rng)
    weights[:, 0] = 1.0  # at least one unit, also for those that drop the tail
    out = integrate_and_fire(x, weights)
    units = BASELINES[name](x, weights)
    for row, full in enumerate(weights.sum(1).long().tolist()):
        torch.testing.assert_close(
            units[row, :full].double(), out.units[row, :full], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("name", BASELINES)
def test_every_frame_a_unit(name):
    x = torch.randn(2, 9, 4)
    torch.testing.assert_close(BASELINES[name](x, torch.ones(2, 9)), x)


@pytest.mark.parametrize("name", BASELINES)
def test_gradients_of_frames(name):
    torch.manual_seed(0)
    weights = torch.rand(1, 30, dtype=torch.float64)
    found = []
    for cif in (lambda x, w: integrate_and_fire(x, w).units, BASELINES[name]):
        x = torch.ones(1, 30, 2, dtype=torch.float64).requires_grad_()
        cif(x, weights)[:, : int(weights.sum())].sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_what_is_missing_is_noted(monkeypatch):
    assert ("torch-cif" in BASELINES) is (not NOTES)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found, notes = find_baselines()
    assert "torch-cif" not in found
    assert notes == ["torch-cif is left out: pip install torch-cif"]
