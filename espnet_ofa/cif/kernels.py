"""Triton kernels of CIF, for CUDA: four launches forward and backward.

Nothing is laid out between them. ``accumulate`` leaves the cumulative mass and the
number of fires after every frame; from these a program that owns a unit finds its
frames by bisection, one that owns a frame knows its units, and the share of frame t in
unit j is the overlap of two intervals, ``min(edge[t + 1], upper[j]) - max(edge[t],
lower[j])``. No program writes where another does: no atomics, the same result every
run. Mass is float64; frames are read in their own dtype and mixed in fp32 (float64
frames in float64).

Set TRITON_INTERPRET=1 before the first import to run them on CPU tensors (tests).
"""

# Triton is optional and its decorated kernels carry no types.
# pyright: reportMissingImports=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from espnet_ofa.cif import types

TIE = tl.constexpr(types.TIE)
NO_MASS = tl.constexpr(types.NO_MASS)
_MOST = tl.constexpr(2**30)  # fires of a row whose weights are infinite
_NAN = tl.constexpr(tl.PropagateNan.ALL)

# They differ from batch to batch: a kernel for each kind would be compiled in training.
_SIZES = ("size", "count")


@triton.jit(do_not_specialize=_SIZES)
def accumulate(
    weights, lengths, edge, fires, stats, size,
    THRESHOLD: tl.constexpr, TAIL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: the mass of one row.

    Args:
        weights: (B, size) fp32 or float64.
        lengths: (B,) frames.
        edge: (B, size + 1) float64, mass before the first and after each frame, snapped
            up to the unit that fired within the tie tolerance.
        fires: (B, size + 1) int32, units completed so far.
        stats: (B, 3) float64: units of the row, units that fired, 1 if a weight is bad.
        size: frames.
    """
    row = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + row)
    threshold = tl.full([], THRESHOLD, tl.float64)
    plain = tl.full([], 0.0, tl.float64)
    clean = tl.full([], 0.0, tl.float64)
    end = tl.full([], 0.0, tl.float64)
    full = tl.full([], 0.0, tl.float64)
    bad = tl.full([], 0.0, tl.float64)
    edge += row * (size + 1)
    fires += row * (size + 1)
    tl.store(edge, plain)
    tl.store(fires, 0)
    for first in range(0, size, BLOCK):
        frame = first + tl.arange(0, BLOCK)
        inside = frame < length
        weight = tl.load(weights + row * size + frame, mask=inside, other=0.0)
        weight = weight.to(tl.float64)
        good = (weight >= 0) & (weight < float("inf"))
        bad = tl.maximum(bad, tl.max(tl.where(good, 0.0, 1.0).to(tl.float64), 0))
        # Fires are indices: whatever the weights hold, they grow and are finite.
        positive = tl.where(weight > 0, weight, 0.0)
        fired = tl.floor((clean + tl.cumsum(positive, 0)) / threshold + TIE)
        fired = tl.minimum(fired, _MOST)
        mass = plain + tl.cumsum(weight, 0)
        mass += tl.maximum(fired * threshold - mass, 0.0)
        tl.store(edge + 1 + frame, mass, mask=frame < size)
        tl.store(fires + 1 + frame, fired.to(tl.int32), mask=frame < size)
        end = tl.sum(tl.where(frame == tl.minimum(first + BLOCK, size) - 1, mass, 0.0))
        full = tl.maximum(full, tl.max(fired, 0))
        plain += tl.sum(weight, 0)
        clean += tl.sum(positive, 0)
    kept = (end - full * threshold >= threshold * TAIL) | (full == 0)
    units = tl.where(length > 0, full + tl.where(kept, 1.0, 0.0), 0.0)
    tl.store(stats + row * 3, units)
    tl.store(stats + row * 3 + 1, full)
    tl.store(stats + row * 3 + 2, bad)


@triton.jit
def _last(stats, edge, row, size, count, THRESHOLD: tl.constexpr):
    """The last unit of a row, of ``count`` columns.

    Returns:
        Its index; where its mass ends; whether what follows is dropped; whether the row
        has no mass; the factor of its shares; its mass before.
    """
    threshold = tl.full([], THRESHOLD, tl.float64)
    units = tl.load(stats + row * 3)
    full = tl.load(stats + row * 3 + 1)
    last = tl.maximum(tl.minimum(units, count), 1.0) - 1
    dropped = units <= full
    end = tl.load(edge + row * (size + 1) + size)
    end = tl.where(dropped, full * threshold, end)
    mass = end - last * threshold
    massless = (full == 0) & (mass < threshold * NO_MASS)
    scaled = ((units > full) | (units > count)) & (massless == 0)
    factor = tl.where(scaled, threshold / tl.where(scaled, mass, 1.0), 1.0)
    return last.to(tl.int32), end, dropped, massless, factor, mass


@triton.jit
def _overlap(
    before, after, unit, last, end, massless, factor, length, THRESHOLD: tl.constexpr
):  # fmt: skip
    """Share of a frame, whose mass lies between two edges, in one of its units."""
    threshold = tl.full([], THRESHOLD, tl.float64)
    lower = threshold * unit
    upper = tl.where(unit < last, lower + threshold, end)
    start = tl.maximum(before, lower, propagate_nan=_NAN)
    # The frame may lie in what is dropped.
    start = tl.minimum(start, upper, propagate_nan=_NAN)
    share = tl.minimum(after, upper, propagate_nan=_NAN) - start
    share *= tl.where(unit == last, factor, 1.0)
    return tl.where(massless, threshold / length.to(tl.float64), share)


@triton.jit
def _completes(fires, size, unit):
    """Bisection: the frame after which ``unit`` units are complete."""
    low = 0
    high = size
    while low < high:
        middle = (low + high) // 2
        if tl.load(fires + middle + 1) >= unit:
            high = middle
        else:
            low = middle + 1
    return low


@triton.jit(do_not_specialize=_SIZES)
def mix(
    frames, edge, fires, stats, lengths, out, durations, size, count, dim,
    THRESHOLD: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK elements of one unit.

    Args:
        frames: (B, size, dim).
        edge, fires, stats, lengths: of :func:`accumulate`.
        out: (B, count, dim).
        durations: (B, count) float64.
    """
    owner = tl.program_id(0).to(tl.int64)
    row = owner // count
    unit = (owner % count).to(tl.int32)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    length = tl.load(lengths + row)
    last, last_end, _, massless, factor, _ = _last(
        stats, edge, row, size, count, THRESHOLD
    )
    edges = edge + row * (size + 1)
    start = _completes(fires + row * (size + 1), size, unit)
    end = _completes(fires + row * (size + 1), size, unit + 1)
    stop = tl.where(unit < last, end + 1, length).to(tl.int32)
    stop = tl.where((unit <= last) & (length > 0), stop, start)

    total = tl.zeros([BLOCK], dtype=ACC)
    before = tl.load(edges + tl.minimum(start, size))
    for frame in range(start, stop):
        after = tl.load(edges + frame + 1)
        share = _overlap(
            before, after, unit, last, last_end, massless, factor, length, THRESHOLD
        )
        place = (row * size + frame) * dim + column
        x = tl.load(frames + place, mask=column < dim, other=0.0)
        total += share.to(ACC) * x.to(ACC)
        before = after
    tl.store(out + owner * dim + column, total.to(out.dtype.element_ty), column < dim)

    threshold = tl.full([], THRESHOLD, tl.float64)
    begins = _time(edges, start, size, unit.to(tl.float64) * threshold)
    ends = _time(edges, end, size, (unit + 1).to(tl.float64) * threshold)
    ends = tl.where(unit < last, ends, length.to(tl.float64))
    duration = ends - tl.where(unit > 0, begins, 0.0)
    duration = tl.where((unit <= last) & (length > 0), duration, 0.0)
    tl.store(durations + owner, duration, mask=tl.program_id(1) == 0)


@triton.jit
def _time(edges, frame, size, mass):
    """When the mass is reached, in frames, inside a given frame."""
    frame = tl.minimum(frame, size - 1)
    before = tl.load(edges + frame)
    step = tl.load(edges + frame + 1) - before
    return frame.to(tl.float64) + (mass - before) / tl.where(step > 0, step, 1.0)


@triton.jit(do_not_specialize=_SIZES)
def frame_gradients(
    frames, grad, edge, fires, stats, lengths, out, moves, size, count, dim,
    THRESHOLD: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: the gradient of one frame, and what its weight is told by it.

    Args:
        frames: (B, size, dim).
        grad: (B, count, dim) gradient of the units.
        edge, fires, stats, lengths: of :func:`accumulate`.
        out: (B, size, dim).
        moves: (3, B, size): derivative by the edge after the frame; by the one before
            it; and what the scale of the last unit has to do with it.
    """
    owner = tl.program_id(0).to(tl.int64)
    row = owner // size
    frame = owner % size
    length = tl.load(lengths + row)
    last, last_end, dropped, massless, factor, _ = _last(
        stats, edge, row, size, count, THRESHOLD
    )
    place = row * (size + 1) + frame
    fired = tl.load(fires + place)
    fired_after = tl.load(fires + place + 1)
    before = tl.load(edge + place)
    after = tl.load(edge + place + 1)
    first_unit = tl.minimum(fired, last)
    last_unit = tl.minimum(fired_after, last)
    stop = tl.where(frame < length, last_unit + 1, first_unit)

    opening = tl.full([], 0.0, ACC)  # dot products with the first and last unit's
    closing = tl.full([], 0.0, ACC)
    for first in range(0, dim, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < dim
        x = tl.load(frames + owner * dim + column, mask=inside, other=0.0).to(ACC)
        total = tl.zeros([BLOCK], dtype=ACC)
        for unit in range(first_unit, stop):
            share = _overlap(
                before, after, unit, last, last_end, massless, factor, length, THRESHOLD
            )
            g = grad + (row * count + unit) * dim + column
            g = tl.load(g, mask=inside, other=0.0).to(ACC)
            total += share.to(ACC) * g
            dot = tl.sum(x * g, 0)
            opening += tl.where(unit == first_unit, dot, 0.0)
            closing += tl.where(unit == last_unit, dot, 0.0)
        total = total.to(out.dtype.element_ty)
        tl.store(out + owner * dim + column, total, mask=inside)

    # A dropped edge does not move; one in the last unit moves by the factor.
    share = _overlap(
        before, after, last_unit, last, last_end, massless, factor, length, THRESHOLD
    )
    full = tl.load(stats + row * 3 + 1)
    outer = tl.where(last_unit == last, factor, 1.0)
    outer = tl.where((dropped & (fired_after >= full)) | massless, 0.0, outer)
    inner = tl.where(first_unit == last, factor, 1.0)
    inner = tl.where((dropped & (fired >= full)) | massless, 0.0, inner)
    scale = tl.where((last_unit == last) & (frame < length), share, 0.0)
    cells = tl.num_programs(0)
    tl.store(moves + owner, closing * outer.to(ACC))
    tl.store(moves + cells + owner, opening * inner.to(ACC))
    tl.store(moves + 2 * cells + owner, closing * scale.to(ACC))


@triton.jit(do_not_specialize=_SIZES)
def weight_gradients(
    moves, edge, stats, lengths, out, size, count,
    THRESHOLD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: the gradients of one row's weights.

    A weight moves all edges after it, so its gradient is a sum from the end.

    Args:
        moves: (3, B, size) of :func:`frame_gradients`.
        edge, stats, lengths: of :func:`accumulate`.
        out: (B, size).
    """
    row = tl.program_id(0).to(tl.int64)
    cells = tl.num_programs(0) * size
    length = tl.load(lengths + row)
    _, _, dropped, massless, _, mass = _last(stats, edge, row, size, count, THRESHOLD)
    scale = tl.full([], 0.0, tl.float64)
    for first in range(0, size, BLOCK):
        frame = first + tl.arange(0, BLOCK)
        place = moves + 2 * cells + row * size + frame
        scale += tl.sum(tl.load(place, mask=frame < size, other=0.0).to(tl.float64), 0)
    # Where the tail is dropped, a scale (of merged units) does not depend on weights.
    scaled = (dropped == 0) & (massless == 0)
    total = tl.where(scaled, -scale / tl.where(scaled, mass, 1.0), 0.0)

    blocks = (size + BLOCK - 1) // BLOCK
    for block in range(0, blocks):
        frame = (blocks - 1 - block) * BLOCK + tl.arange(0, BLOCK)
        place = moves + row * size + frame
        move = tl.load(place, mask=frame < length, other=0.0).to(tl.float64)
        following = tl.load(place + cells + 1, mask=frame + 1 < length, other=0.0)
        move -= following.to(tl.float64)
        sums = total + tl.cumsum(move, 0, reverse=True)
        sums = tl.where(frame < length, sums, 0.0)
        place = out + row * size + frame
        tl.store(place, sums.to(out.dtype.element_ty), mask=frame < size)
        total += tl.sum(move, 0)
