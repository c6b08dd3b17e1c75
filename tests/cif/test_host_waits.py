"""Nothing waits for the host that need not."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from espnet_ofa.cif import expand, integrate_and_count, integrate_and_fire
from espnet_ofa.cif.api import count_units, read_counts


def test_one_wait_without_num_units(make_case, waits):
    frames, weights, lengths = make_case(0, "plain")
    frames.requires_grad_()
    weights.requires_grad_()
    waits.clear()
    integrate_and_fire(frames, weights, lengths).units.sum().backward()
    assert waits == ["tolist"]


def test_the_wait_brings_the_sum_along(make_case, waits):
    case = make_case(0, "plain")
    waits.clear()
    out, total = integrate_and_count(*case)
    assert waits == ["tolist"]
    assert total == int(out.lengths.sum()) > out.units.size(1)
    _, slow = integrate_and_count(*case, backend="reference")
    assert slow == total
    assert integrate_and_count(*case, num_units=9)[1] is None


@pytest.mark.parametrize("kind", ["plain", "ties", "light"])
def test_units_can_be_counted_first_and_read_later(make_case, backend, waits, kind):
    frames, weights, lengths = make_case(0, kind)
    waits.clear()
    counts = count_units(weights, lengths, threshold=0.7, backend=backend)
    assert waits == []
    most, total = read_counts(counts, weights, lengths)
    assert waits == ["tolist"]
    out = integrate_and_fire(frames, weights, lengths, threshold=0.7)
    assert (most, total) == (out.units.size(1), int(out.lengths.sum()))
    counts = count_units(weights, lengths - lengths, backend=backend)
    with pytest.raises(ValueError, match="row 0 is empty"):
        read_counts(counts, weights, lengths - lengths)


def test_no_wait_with_num_units(make_case, waits):
    frames, weights, lengths = make_case(0, "plain")
    waits.clear()
    out = integrate_and_fire(frames, weights, lengths, num_units=9)
    expand(out.units, out.durations, 12)
    assert waits == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_operator_with_num_units_depends_on_data(dtype):
    """FakeTensorMode holds no data: whatever asks for some raises."""
    with FakeTensorMode():
        frames = torch.randn(2, 20, 4, dtype=dtype, requires_grad=True)
        weights = torch.rand(2, 20, requires_grad=True)
        lengths = torch.tensor([20, 13])
        out = integrate_and_fire(frames, weights, lengths, num_units=9)
        assert out.units.shape == (2, 9, 4) and out.units.dtype == dtype
        back = expand(out.units, out.durations, 20)
        assert back.shape == (2, 20, 4)
        (out.units.sum() + back.sum()).backward()
        assert frames.grad is not None and frames.grad.shape == frames.shape
        assert weights.grad is not None and weights.grad.shape == weights.shape


def test_the_fake_tensor_test_can_fail():
    with FakeTensorMode(), pytest.raises(Exception, match="_local_scalar_dense"):
        integrate_and_fire(torch.randn(2, 20, 4), torch.rand(2, 20))
