"""Does an exported file compute what PyTorch computes?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from espnet_ofa.zoo.onnx_runtime import OnnxUpstream, pad

#: Largest difference of a hidden state from PyTorch's, of states whose mean square is 1
#: (larger states in proportion).
TOLERANCE = 1e-4
#: The same for durations, in frames. Rounding of alpha adds up along an utterance.
DURATION_TOLERANCE = 1e-3
#: int8: root mean square of the difference, as a share of the states'.
INT8_TOLERANCE = 0.1

LAMS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
#: Samples of the utterances of each batch: alone and padded, whole frames and not, one
#: sample, and less than a window.
BATCHES = ((40000,), (27203, 9001, 400, 399, 1), (16000, 15999))

#: Waves, lengths and lambda to padded outputs by name, as PyTorch computes them.
Reference = Callable[[Tensor, Tensor, float | None], dict[str, Tensor]]


class Agreement(NamedTuple):
    """How far a file is from PyTorch.

    Attributes:
        largest: difference of states, as for :data:`TOLERANCE`.
        relative: root mean square, as for :data:`INT8_TOLERANCE`; of the worst run.
        durations: difference in frames.
        runs: batches times lambdas.
    """

    largest: float
    relative: float
    durations: float
    runs: int


def check_agreement(
    path: str | Path,
    reference: Reference,
    *,
    int8: bool = False,
    lams: Sequence[float] = LAMS,
    batches: Sequence[Sequence[int]] = BATCHES,
) -> Agreement:
    """Compare an exported file with PyTorch over lambdas, lengths and padding.

    Lengths must be equal. States and durations are compared where they are not padding.

    Raises:
        ValueError: they differ; says at which lambda and lengths, and by how much.
    """
    model = OnnxUpstream(path, threads=torch.get_num_threads())
    largest = relative = durations = 0.0
    runs = 0
    for batch in batches:
        waves = [speech_like(samples, i) for i, samples in enumerate(batch)]
        padded, lengths = (torch.from_numpy(x) for x in pad(waves))
        for lam in lams if model.uses_lam else (None,):
            with torch.inference_mode():
                wanted = reference(padded, lengths, lam)
            want = {name: x.numpy() for name, x in wanted.items()}
            where = f"at lambda {lam}, waves of {list(batch)} samples"
            try:
                got = model.run(waves, lam)
            except Exception as e:  # of onnxruntime, not exported
                cause = " ".join(str(e).split())[:300]
                raise ValueError(f"ONNX Runtime cannot run it {where}: {cause}") from e
            units = want.pop("unit_lengths")
            if not np.array_equal(got["unit_lengths"], units):
                raise ValueError(
                    f"{where}: expected {units.tolist()} units, found "
                    f"{got['unit_lengths'].tolist()}"
                )
            last = _difference(got, want, "durations", units).largest
            want.pop("durations")
            states = [_difference(got, want, name, units) for name in want]
            worst = max(x.largest for x in states), max(x.relative for x in states)
            wrong = worst[1] > INT8_TOLERANCE if int8 else worst[0] > TOLERANCE
            if wrong or last > DURATION_TOLERANCE or not np.isfinite([*worst]).all():
                raise ValueError(
                    f"{where}: states differ by {worst[0]:.1e} at most, {worst[1]:.1e} "
                    f"in the mean, durations by {last:.1e} frames; expected at most "
                    + (f"{INT8_TOLERANCE:g} in the mean" * int8)
                    + (f"{TOLERANCE:g}" * (not int8))
                    + f" and {DURATION_TOLERANCE:g} frames"
                )
            largest, relative = max(largest, worst[0]), max(relative, worst[1])
            durations, runs = max(durations, last), runs + 1
    return Agreement(largest, relative, durations, runs)


class _Difference(NamedTuple):
    largest: float
    relative: float


def _difference(
    got: dict[str, Any], want: dict[str, Any], name: str, units: np.ndarray
) -> _Difference:
    """Of one output, over units that are not padding."""
    rows = range(len(units))
    a = np.concatenate([got[name][row, : units[row]].ravel() for row in rows])
    b = np.concatenate([want[name][row, : units[row]].ravel() for row in rows])
    difference = (a - b).astype(np.float64)
    size = float(np.sqrt(np.square(b, dtype=np.float64).mean()))
    scale = 1.0 if name == "durations" else max(size, 1.0)
    rms = float(np.sqrt(np.square(difference).mean()))
    return _Difference(float(np.abs(difference).max()) / scale, rms / max(size, 1e-6))


def speech_like(samples: int, seed: int = 0) -> np.ndarray:
    """(samples,) of syllables over noise: voiced sounds that come and go."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time)) / 16000
    voice = sum(np.sin(k * pitch) / k for k in range(1, 25))
    open_ = np.clip(np.sin(2 * np.pi * (3 + seed) * time), 0, None)
    noise = random.standard_normal(samples)
    return (0.1 * open_ * voice + 0.01 * noise).astype(np.float32)
