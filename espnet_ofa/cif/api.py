"""Continuous integrate-and-fire: frames to units, and back."""

import functools
import importlib.util
import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from espnet_ofa.cif import eager
from espnet_ofa.cif.checks import check_options, check_shapes, check_values
from espnet_ofa.cif.plan import Tail, accumulate, judge_tail, make_plan
from espnet_ofa.cif.tracing import is_traced
from espnet_ofa.cif.types import CIFOutput


def integrate_and_fire(
    frames: Tensor,
    weights: Tensor,
    lengths: Tensor | None = None,
    *,
    threshold: float = 1.0,
    tail_threshold: float = 0.5,
    num_units: int | None = None,
    backend: str = "auto",
    validate: bool = False,
) -> CIFOutput:
    """Accumulate weighted frames and fire a unit whenever ``threshold`` is reached.

    Unit j covers the mass from ``j * threshold`` to ``(j + 1) * threshold``; a frame
    contributes its overlap with that interval, so the weights of a unit add up to
    ``threshold`` and a frame heavier than that fires several times.

    Precision. Weights are rounded to fp32 (float64 weights are used as they are) and
    accumulated in float64; frames are mixed in fp32 (float64 frames in float64). The
    call is outside autocast, for bf16 weights would shift lengths.

    Ties. A unit fires when its mass reaches ``threshold * (1 - 2**-20)``. The boundary
    then snaps to the exact multiple: the value is snapped, the gradient is that of the
    cumulative mass (straight through). With C_t the mass after frame t and g_j the
    gradient of the unit open after frame t, ``dL/dC_t = g_j . (x_t - x_{t+1})``; a unit
    that does not exist has no gradient.

    Tail. Let r be the mass left at the end. ``r >= tail_threshold * threshold``: one
    more unit, scaled by ``threshold / r`` (gradient flows through the scale). Less: it
    is dropped and its frames join the last unit's duration. If nothing has fired, the
    utterance becomes one unit, scaled the same way; below ``1e-6 * threshold`` it is
    ``threshold`` times the mean of its frames, and the weights get no gradient.

    Durations. A frame's time is split among its units like its mass; a frame of zero
    weight belongs to the unit open at that moment. Durations carry no gradient.

    Host waits. Without ``num_units`` there is exactly one, which carries the largest
    number of units, their sum (see :func:`integrate_and_count`) and the checks of
    lengths and weights; with ``num_units`` there is none, and values are checked only
    on request: a length beyond S counts as S, and a bad weight spoils its own row.

    Args:
        frames: (B, S, D) bf16, fp16, fp32 or float64; may be non-contiguous.
        weights: (B, S), >= 0.
        lengths: (B,) integers in [1, S], frames per row, best on the device of the
            frames; frames and weights beyond count nothing, whatever they hold. None
            means S.
        threshold: mass of one unit.
        tail_threshold: smallest tail that becomes a unit, as a share of ``threshold``.
        num_units: upper bound on units per row; the output has exactly that many
            columns. The units of a row that has more are merged into its last column,
            weighted so that they add up to ``threshold``, and flagged in ``merged``.
        backend: "eager", "triton" (CUDA), "reference" (slow float64 loop), or "auto":
            triton for CUDA tensors where it is installed, else eager.
        validate: check weights and lengths, naming the first bad row and frame, at the
            price of a host wait.

    Raises:
        ValueError: wrong shapes or options; an empty row (with ``num_units`` only if
            ``validate``), a length beyond S, a weight that is negative, NaN or infinite
            (likewise).

    Reference: Dong and Xu, arXiv:1905.11235, section 3.
    """
    out, _ = integrate_and_count(
        frames,
        weights,
        lengths,
        threshold=threshold,
        tail_threshold=tail_threshold,
        num_units=num_units,
        backend=backend,
        validate=validate,
    )
    return out


def integrate_and_count(
    frames: Tensor,
    weights: Tensor,
    lengths: Tensor | None = None,
    *,
    threshold: float = 1.0,
    tail_threshold: float = 0.5,
    num_units: int | None = None,
    backend: str = "auto",
    validate: bool = False,
) -> tuple[CIFOutput, int | None]:
    """:func:`integrate_and_fire`, and the units of all rows together.

    The wait that finds the largest row brings the sum along, so that packing rows
    without their padding needs no other.

    Returns:
        The output, and ``lengths.sum()`` as a number; None where nothing waited for it:
        with ``num_units``, and while tracing.
    """
    check_shapes(frames, weights, lengths)
    check_options(threshold, tail_threshold, num_units)
    if lengths is None:
        lengths = torch.full(frames.shape[:1], frames.size(1), device=frames.device)
    lengths = lengths.to(device=frames.device, dtype=torch.int64)
    if validate:
        check_values(weights, lengths)

    wide = weights.dtype == torch.float64
    if backend == "reference":
        from espnet_ofa.cif import reference

        if not validate:
            check_values(weights, lengths)
        out = reference.integrate_and_fire(
            frames, weights, lengths, threshold, tail_threshold, num_units
        )
        out = out._replace(
            units=out.units.to(frames.dtype),
            durations=out.durations if wide else out.durations.float(),
        )
        return out, int(out.lengths.sum()) if num_units is None else None

    weights = weights if wide else weights.float()
    valid, total = lengths.clamp(0, frames.size(1)), None
    with torch.autocast(frames.device.type, enabled=False):
        found = _accumulate(weights, valid, threshold, tail_threshold, backend)
        if num_units is None and is_traced():
            num_units = _trace_units(found.units)
        elif num_units is None:
            num_units, total = read_counts(found.stack(lengths), weights, lengths)
        if found.tail is None:
            from espnet_ofa.cif import cuda

            units, durations = cuda.mix(frames, weights, found.mass, num_units)
        else:
            plan = make_plan(found.mass, found.tail, valid, num_units, threshold)
            units, durations = eager.mix(frames, plan), plan.durations
    counts = found.units
    out = CIFOutput(
        units,
        counts.clamp(max=num_units).long(),
        durations if wide else durations.float(),
        counts > num_units,
    )
    return out, total


def expand(units: Tensor, durations: Tensor, num_frames: int) -> Tensor:
    """Spread units over the frames they cover: the reverse of integrate_and_fire.

    CIF once more, with the units as frames and their durations as weights: frame t is
    the blend of the units that cover the time from t to t + 1. Constant units give
    constant frames. The gradient goes to the units; durations carry none.

    Args:
        units: (B, U, D).
        durations: (B, U) in frames, zero for padding, whose units count nothing.
        num_frames: output frames, at least the largest sum of durations; what lies
            beyond is cut off.

    Returns:
        (B, num_frames, D), zero where a row's durations have ended.
    """
    check_shapes(units, durations, None, names=("units", "durations"))
    if num_frames < 1:
        raise ValueError(f"num_frames must be >= 1; got {num_frames}")
    durations = durations.detach()
    columns = torch.arange(1, durations.size(1) + 1, device=durations.device)
    lengths = torch.where(durations > 0, columns, 0).amax(1)
    # One more column takes what does not fit, so that it is cut off and not blended in.
    out = integrate_and_fire(units, durations, lengths, num_units=num_frames + 1)
    return out.units[:, :num_frames]


class _Found(NamedTuple):
    """What is known before the mixing.

    Attributes:
        units: (B,) float64, units of each row.
        bad: (B,), not zero where a weight of the row is negative or NaN.
        mass: the backend's own.
        tail: None with Triton.
    """

    units: Tensor
    bad: Tensor
    mass: Any
    tail: Tail | None

    def stack(self, lengths: Tensor) -> Tensor:
        """(3, B) float64: units, lengths as the caller gave them, bad."""
        return torch.stack([self.units, lengths.double(), self.bad.double()])


def _accumulate(
    weights: Tensor,
    lengths: Tensor,
    threshold: float,
    tail_threshold: float,
    backend: str,
) -> _Found:
    if _choose(backend, weights) == "triton":
        from espnet_ofa.cif import cuda

        mass = cuda.accumulate(weights, lengths, threshold, tail_threshold)
        return _Found(mass.stats[:, 0], mass.stats[:, 2], mass, None)
    mass = accumulate(weights, lengths, threshold)
    tail = judge_tail(mass, lengths, threshold, tail_threshold)
    return _Found(tail.units[:, 0], mass.bad[:, 0], mass, tail)


def count_units(
    weights: Tensor,
    lengths: Tensor,
    *,
    threshold: float = 1.0,
    tail_threshold: float = 0.5,
    backend: str = "auto",
) -> Tensor:
    """What :func:`read_counts` reads, without waiting for the host.

    For callers that mix later, with ``num_units``.

    Args:
        weights: (B, S) fp32 or float64.
        lengths: (B,) int64 frames.
        threshold: as in :func:`integrate_and_fire`; so are the others.

    Returns:
        (3, B) float64.
    """
    valid = lengths.clamp(0, weights.size(1))
    found = _accumulate(weights, valid, threshold, tail_threshold, backend)
    return found.stack(lengths)


def read_counts(counts: Tensor, weights: Tensor, lengths: Tensor) -> tuple[int, int]:
    """Maximum and sum of the units per row: the one host wait.

    Args:
        counts: (3, B) of :func:`count_units`.
        weights: (B, S) that they were made of.
        lengths: (B,) frames, as the caller gave them.

    Raises:
        ValueError: a bad weight, an empty row or one beyond S, by name.
    """
    units, sizes, bad = counts.tolist()
    fit = min(sizes) >= 1 and max(sizes) <= weights.size(1)
    if not fit or any(bad) or math.isinf(max(units)):
        check_values(weights, lengths)
    return int(max(units)), int(sum(units))


def _trace_units(units: Tensor) -> int:
    """The largest number of (B,) units, as a symbol."""
    most = units.max().long().item()
    torch._check(most >= 1)
    return cast(int, most)  # int() would make a constant of the symbol


def _choose(backend: str, x: Tensor) -> str:
    """The fast backend to use."""
    if backend == "auto":
        use_triton = x.is_cuda and not is_traced() and _has_triton()
        return "triton" if use_triton else "eager"
    if backend not in ("eager", "triton"):
        raise ValueError(
            f"backend must be auto, reference, eager or triton; got {backend!r}"
        )
    if backend == "triton" and not _has_triton():
        raise ValueError(
            "backend 'triton' needs the package triton; install it "
            "or use backend='auto' or 'eager'"
        )
    return backend


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
