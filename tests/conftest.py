"""Settings every test shares."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Before torch is loaded: parallel test workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402

# Triton decides when it is imported, which transformers does too, whether kernels run
# on a GPU or are interpreted.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A loaded machine must not fail a property test for being slow.
settings.register_profile("espnet_ofa", deadline=None)
settings.load_profile("espnet_ofa")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each call that reads a tensor's values on the host."""
    import torch  # here, since the tests of data/ need none

    calls: list[str] = []
    for name in ("tolist", "item", "__bool__", "__int__", "__float__", "cpu", "numpy"):
        method = getattr(torch.Tensor, name)

        def counted(self, *args, name=name, method=method):
            calls.append(name)
            return method(self, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    return calls


class Clock:
    """A clock that only moves when somebody works."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self, *_) -> float:
        return self.time

    def work(self, seconds: float, log: list | None = None, name: str = ""):
        def call(*_):
            self.time += seconds
            if log is not None:
                log.append(name)

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In the place of the clock of all that is measured."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    return clock
