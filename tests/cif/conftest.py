"""Random utterances of every awkward kind, and the backends to try them on."""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor


class Case(NamedTuple):
    """Arguments of one call: frames (B, S, D), weights (B, S), lengths (B,)."""

    frames: Tensor
    weights: Tensor
    lengths: Tensor


def _make_case(
    seed: int,
    kind: str,
    size: int = 12,
    rows: int = 3,
    dtype: torch.dtype = torch.float32,
    dim: int = 4,
) -> Case:
    """Draw a batch; ``kind`` says what its weights are like."""
    random = torch.Generator().manual_seed(seed)
    frames = torch.randn(rows, size, dim, generator=random, dtype=torch.float64)
    weights = torch.rand(rows, size, generator=random, dtype=torch.float64)
    if kind == "ties":
        whole = torch.randint(1, 9, (rows, 1), generator=random)
        weights = torch.ones_like(weights) / whole
    elif kind == "zeros":
        weights *= torch.rand(rows, size, generator=random) < 0.4
    elif kind == "heavy":
        weights *= 4
    elif kind == "light":
        weights *= 0.05
    else:
        assert kind == "plain", kind
    lengths = torch.randint(1, size + 1, (rows,), generator=random)
    lengths[0] = size
    return Case(frames.to(dtype), weights.float().to(dtype), lengths)


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    return _make_case


@pytest.fixture(scope="session", params=["eager", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every fast backend; the kernels run in Triton's interpreter without a GPU."""
    if request.param == "triton":
        if importlib.util.find_spec("triton") is None:
            pytest.skip("triton is not installed")
        if torch.cuda.is_available():
            pytest.skip("kernels are compiled here: tests/cif/test_cuda.py runs them")
    return request.param
