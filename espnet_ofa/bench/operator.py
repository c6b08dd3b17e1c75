"""The operator beside other implementations and beside a bare copy of its bytes.

The bound. Forward reads the frames and writes the units; backward reads the gradient of
the units and the frames once more and writes the gradient of the frames. A preallocated
``copy_`` that reads half of these bytes and writes the other half is as fast as memory
lets anything be. ``warm``: the same buffers in every call, in the cache as far as they
fit. ``cold``: buffers taken in turns, more of them than any cache holds. The same for
all sides.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from espnet_ofa.bench.baselines import CIF, find_baselines
from espnet_ofa.bench.timing import Call, interleave
from espnet_ofa.cif import integrate_and_fire
from espnet_ofa.report.memory import peak_bytes, peak_resident_bytes
from espnet_ofa.subsampling.rate import compress_weights

OURS, BOUNDED, COPY = "espnet_ofa", "espnet_ofa, num_units", "copy"
MEAN_ALPHA = 0.25
COLD_BYTES = 256 << 20  # more than a cache of this decade holds
MOST_BUFFERS = 256  # of tiny sizes (``--quick``), which then are not cold


@dataclass(frozen=True)
class Point:
    """One size to time.

    Attributes:
        batch, frames, dim: of the input.
        lam: lambda; alpha itself is uniform, with mean a quarter.
        backward: with the gradients of frames and weights.
        cold: buffers come from memory, not from the cache.
        study: which table or curve the point belongs to.
    """

    batch: int
    frames: int
    dim: int
    lam: float = 1.0
    backward: bool = False
    cold: bool = False
    study: str = "sides"


def points(quick: bool = False) -> list[Point]:
    """What the operator's report shows."""
    if quick:
        base, single, sizes, lams = (2, 60, 16), (1, 50, 16), (40, 80), (0.0, 1.0)
    else:
        base, single = (8, 800, 768), (1, 750, 768)
        sizes = (200, 400, 750, 1500, 3000, 6000)
        lams = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    found = []
    for backward in (False, True):
        for cold in (False, True):
            found.append(Point(*base, backward=backward, cold=cold))
            found.append(Point(*single, backward=backward, cold=cold))
        found += [Point(*base, lam, backward, True, "lambda") for lam in lams]
        found += [
            Point(1, frames, base[2], 1.0, backward, True, "length") for frames in sizes
        ]
    return found


def _inputs(
    point: Point, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    shape = point.batch, point.frames
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(*shape, point.dim, generator=generator).to(device, dtype)
    alpha = 2 * MEAN_ALPHA * torch.rand(*shape, generator=generator)
    return frames, compress_weights(alpha, point.lam).to(device)


def _bytes(point: Point, frames: Tensor, units: Tensor) -> tuple[int, int]:
    """Bytes that have to be moved, and input and output together."""
    both = frames.nbytes + units.nbytes
    moved = both + (2 * frames.nbytes + units.nbytes if point.backward else 0)
    return moved, both


def _call(cif: CIF, backward: bool, buffers: list[tuple[Tensor, Tensor]]) -> Call:
    """A call of ``cif`` on one of the buffers, with gradients if wanted."""
    if not backward:

        def forward(i: int) -> Tensor:
            with torch.no_grad():
                return cif(*buffers[i % len(buffers)])

        return forward
    leaves = [tuple(x.detach().requires_grad_() for x in pair) for pair in buffers]
    # Each side its own: with or without a unit for the tail, the shape differs.
    shape = cif(*buffers[0])
    grads = [torch.randn_like(shape) for _ in leaves]

    def both(i: int) -> tuple[Tensor | None, Tensor | None]:
        frames, weights = leaves[i % len(leaves)]
        frames.grad = weights.grad = None
        cif(frames, weights).backward(grads[i % len(leaves)])
        return frames.grad, weights.grad

    return both


def _sides(point: Point, frames: Tensor, weights: Tensor) -> dict[str, CIF]:
    units = integrate_and_fire(frames[..., :1], weights).units.shape[1]
    sides: dict[str, CIF] = {
        OURS: lambda x, w: integrate_and_fire(x, w).units,
        BOUNDED: lambda x, w: integrate_and_fire(x, w, num_units=units).units,
    }
    others, _ = find_baselines()
    if point.study != "sides":
        others = {name: f for name, f in others.items() if name == "torch-cif"}
    return {**sides, **others}


def time_point(
    point: Point,
    *,
    device: torch.device,
    dtype: torch.dtype,
    rounds: int,
    most_seconds: float,
) -> dict[str, Any]:
    """Time all sides at one point.

    Returns:
        The point, the bytes that have to be moved, and ``sides``: name -> timing. On a
        CUDA device the timing is of the device, and ``wall`` has the wall time, which
        includes the host's wait for the number of units where it is not given.
    """
    frames, weights = _inputs(point, device, dtype)
    units = integrate_and_fire(frames, weights).units
    moved, both = _bytes(point, frames, units)
    copies = min(max(2, COLD_BYTES // both), MOST_BUFFERS) if point.cold else 1
    buffers = [(frames, weights)]
    buffers += [(frames.clone(), weights.clone()) for _ in range(copies - 1)]
    sides = {
        name: _call(cif, point.backward, buffers)
        for name, cif in _sides(point, frames, weights).items()
    }
    sides[COPY] = _copy(moved // 2, copies, device)
    timed = partial(
        interleave, sides, rounds=rounds, device=device, most_seconds=most_seconds
    )
    result: dict[str, Any] = {
        **asdict(point),
        "units": units.shape[1],
        "bytes": moved,
        "dtype": str(dtype).removeprefix("torch."),
        "sides": {k: asdict(v) for k, v in timed(on_device=True).items()},
    }
    if device.type == "cuda":
        result["wall"] = {k: asdict(v) for k, v in timed().items()}
    return result


def _copy(size: int, copies: int, device: torch.device) -> Call:
    """``copy_`` of ``size`` bytes between buffers that are there already."""
    pairs = [
        tuple(torch.ones(size // 4, device=device) for _ in range(2))
        for _ in range(copies)
    ]

    def copy(i: int) -> Tensor:
        source, target = pairs[i % copies]
        return target.copy_(source)

    return copy


def measure_memory(
    side: str, point: Point, *, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Peak memory of one side; meant for a process of its own.

    Returns:
        ``over_io``: the most that tensors held, frames and (with backward) the gradient
        of the units included, over frames and units; ``resident_over_io``: the same by
        the growth of the process, None where that is not known.
    """
    small = Point(1, 9, 8)
    for one in (small, point):  # the first loads what a first call loads
        frames, weights = _inputs(one, device, dtype)
        cif = _sides(one, frames, weights)[side]
        call = partial(_once, cif, frames, weights, one.backward)
        resident = peak_resident_bytes(call) if device.type == "cpu" else None
    traced = peak_bytes(call, device)
    units = integrate_and_fire(frames, weights).units
    _, both = _bytes(point, frames, units)
    return {
        **asdict(point),
        "side": side,
        "over_io": (frames.nbytes + traced) / both,
        "resident_over_io": (
            None if resident is None else (frames.nbytes + resident) / both
        ),
    }


def _once(cif: CIF, frames: Tensor, weights: Tensor, backward: bool) -> list[Tensor]:
    """Units, or the gradients; nothing outlives the call but what it returns."""
    if not backward:
        with torch.no_grad():
            return [cif(frames, weights)]
    leaves = [x.detach().requires_grad_() for x in (frames, weights)]
    units = cif(leaves[0], leaves[1])
    return list(torch.autograd.grad(units, leaves, torch.ones_like(units)))
