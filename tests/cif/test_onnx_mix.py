"""The mixing that ONNX gets equals the reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_ofa.cif import eager, integrate_and_fire, onnx

KINDS = ["plain", "heavy", "light", "ties", "zeros"]


@pytest.fixture
def as_exported(monkeypatch):
    """Mix as while an export is running."""
    monkeypatch.setattr(eager, "mix", onnx.mix)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_units", [None, 3, 40])
def test_equals_the_reference(as_exported, make_case, kind, num_units):
    for seed in range(20):
        case = make_case(seed, kind, 1 + seed, 3)
        for row, n in enumerate(case.lengths.tolist()):
            case.frames[row, n:] = float("nan")  # padding may hold anything
        want = integrate_and_fire(*case, num_units=num_units, backend="reference")
        got = integrate_and_fire(*case, num_units=num_units, backend="eager")
        torch.testing.assert_close(got.units, want.units, atol=1e-5, rtol=1e-5)
        assert torch.equal(got.lengths, want.lengths)


@given(seed=st.integers(0, 999), threshold=st.floats(0.2, 3.0))
def test_keeps_precision_on_long_audio(make_case, seed, threshold):
    frames, weights, lengths = make_case(seed, "plain", 3000, 1)
    frames = frames + 100.0  # the sum over all is 3000 times a unit's
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager, "mix", onnx.mix)
        got = integrate_and_fire(frames, weights, lengths, threshold=threshold)
    want = integrate_and_fire(
        frames.double(), weights, lengths, threshold=threshold, backend="eager"
    )
    torch.testing.assert_close(got.units.double(), want.units, atol=0.0, rtol=1e-5)


def test_an_empty_row_is_zero(as_exported):
    frames = torch.full((2, 4, 3), float("nan"))
    frames[0] = 1.0
    lengths = torch.tensor([4, 0])
    out = integrate_and_fire(frames, torch.ones(2, 4), lengths, num_units=5)
    assert torch.equal(out.units[1], torch.zeros(5, 3))
    assert torch.equal(out.units[0, :4], torch.ones(4, 3))
