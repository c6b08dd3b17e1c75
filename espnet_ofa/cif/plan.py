"""Where the mass of every frame goes: the part that all fast backends share.

Lay the cumulative mass of an utterance on a line. Frame boundaries cut it at ``C_t``,
unit boundaries at every multiple of the threshold. Between two neighbouring cuts lies
a *piece*: the part of one frame that lands in one unit::

    frames   |   0   |      1      | 2 |        3        |
    units    |      0      |        1        |     2     |
    pieces   |   0   |  1  |   2   | 3 |  4  |     5     |

Walking along the line, every cut moves on to the next frame or to the next unit, so
piece ``e`` always belongs to a frame t and a unit j with ``t + j = e``. Hence a row of
S frames and N units has S + N - 1 pieces, a size known without looking at the data,
and pieces are contiguous both by frame and by unit. Cutting needs no sorting, search,
mask indexing or host wait: only cumulative sums, scatters and gathers on (B, S + N).

All of it is plain autograd on small tensors, so the gradient of the weights (ties,
snapping, the scale of the tail) is written down nowhere else.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_ofa.cif.types import NO_MASS, TIE


class Mass(NamedTuple):
    """Cumulative mass of a batch, before the first frame and after each one.

    Attributes:
        plain: (B, S + 1) float64, the cumulative sum itself; bad weights are zero here.
        edge: (B, S + 1) float64, snapped up to the unit that fired within the tie
            tolerance. The value is snapped, the gradient is that of ``plain``
            (straight through). NaN all over a row that has a bad weight.
        fires: (B, S + 1) float64, units completed so far: the index of the open unit.
            Never decreases and is never NaN, whatever the weights hold.
        bad: (B, 1) bool, some weight of the row is negative or NaN.
    """

    plain: Tensor
    edge: Tensor
    fires: Tensor
    bad: Tensor


class Tail(NamedTuple):
    """What becomes of the mass left when the utterance ends, (B, 1) each.

    Attributes:
        full: float64, units that fired.
        kept: bool, the tail is one more unit.
        units: float64, units of the utterance; 0 only where it has no frames.
    """

    full: Tensor
    kept: Tensor
    units: Tensor


class Plan(NamedTuple):
    """Pieces of a batch; E = S + N - 1 for N output columns.

    Attributes:
        share: (B, E) float64, weight of the piece in its unit; 0 for padding.
        frame: (B, E) int64, frame of the piece, always a real one.
        unit: (B, E) int64, unit of the piece.
        real: (B, E) bool, False for padding.
        frame_start: (B, S) int64, first piece of each frame.
        unit_start: (B, N) int64, first piece of each unit.
        durations: (B, N) float64, frames per unit, without gradient.
    """

    share: Tensor
    frame: Tensor
    unit: Tensor
    real: Tensor
    frame_start: Tensor
    unit_start: Tensor
    durations: Tensor


def accumulate(
    weights: Tensor, lengths: Tensor, threshold: float, carry: Tensor | None = None
) -> Mass:
    """Accumulate weights in float64 and count the units that fired.

    Args:
        weights: (B, S); rounded to fp32 unless they are float64. Bad ones spoil their
            row's edges, but not its fires: those are indices, and on a GPU one out of
            bounds would end the process.
        lengths: (B,) frames, at most S; weights beyond them may hold anything.
        threshold: mass of a unit.
        carry: (B, 1) float64 mass before the first frame; None means zero.
    """
    if weights.dtype != torch.float64:
        weights = weights.float()
    length = lengths[:, None]
    valid = torch.arange(weights.size(1), device=weights.device) < length
    good = valid & (weights >= 0)
    bad = good.sum(1, keepdim=True) < length
    weights = torch.where(good, weights, 0.0).double()
    if carry is None:
        carry = weights.new_zeros(weights.size(0), 1)
    plain = torch.cat([carry, weights], dim=1).cumsum(1)
    fires = torch.floor(plain.detach() / threshold + TIE)
    least = torch.where(bad, torch.nan, 0.0)
    snap = torch.maximum(fires * threshold - plain.detach(), least)
    return Mass(plain, plain + snap, fires, bad)


def judge_tail(
    mass: Mass, lengths: Tensor, threshold: float, tail_threshold: float
) -> Tail:
    """Decide whether the mass after the last fire is a unit of its own."""
    full = mass.fires[:, -1:]
    rest = mass.edge.detach()[:, -1:] - full * threshold
    kept = (rest >= tail_threshold * threshold) | (full == 0)
    return Tail(full, kept, (full + kept) * (lengths[:, None] > 0))


def make_plan(
    mass: Mass, tail: Tail, lengths: Tensor, num_units: int, threshold: float
) -> Plan:
    """Cut a batch into pieces and weigh them, the last unit scaled to the threshold.

    Args:
        mass: cumulative mass of S frames.
        tail: its end.
        lengths: (B,) frames.
        num_units: output columns N; units beyond it are merged into the last one.
        threshold: mass of a unit.
    """
    length = lengths[:, None]
    last = tail.units.clamp(1, num_units) - 1
    end = mass.edge.detach()[:, -1:]
    massless = (tail.full == 0) & (end < NO_MASS * threshold)
    # Edges that do not move with the weights. A dropped tail weighs nothing: its edges
    # are back at the last fire. Frames without mass share the unit evenly.
    from_unit = torch.where(tail.kept, torch.inf, tail.full)
    from_unit = torch.where(massless, 0.0, from_unit)
    step = torch.where(massless, threshold / length.clamp(min=1).double(), 0.0)
    frames = torch.arange(mass.edge.size(1), device=mass.edge.device)
    still = tail.full * threshold + frames * step
    edge = torch.where(mass.fires >= from_unit, still, mass.edge)
    plan = cut(mass, edge, last, lengths, num_units, threshold)

    # The last unit is scaled when it is a tail or merged. Replacing the size where it
    # is not used keeps 0 / 0 and its gradient out of rows that have no mass.
    scaled = (tail.kept & ~massless) | (tail.units > num_units)
    size = torch.where(scaled, edge[:, -1:] - last * threshold, threshold)
    scale = torch.where(plan.unit == last, threshold / size, 1.0)
    return plan._replace(share=plan.share * scale)


def cut(
    mass: Mass,
    edge: Tensor,
    last: Tensor,
    lengths: Tensor,
    num_units: int,
    threshold: float,
) -> Plan:
    """Cut a batch into pieces; ``share`` is the plain mass of each piece.

    Args:
        mass: cumulative mass of S frames.
        edge: (B, S + 1) its ``edge``, less the mass that counts for no unit.
        last: (B, 1) float64, index of each row's last unit; it takes all later mass.
        lengths: (B,) frames.
        num_units: output columns N, more than ``last``.
        threshold: mass of a unit.
    """
    rows, frames = mass.edge.size(0), mass.edge.size(1) - 1
    device, length = mass.edge.device, lengths[:, None]
    size = frames + num_units - 1
    opened = torch.minimum(mass.fires, last).long()  # (B, S + 1) the open unit

    # Piece opened[t] + t begins with frame t, the others with a unit, so that marking
    # the former sorts both kinds of boundary. The last one ends with the last frame;
    # what lies beyond a row's last piece is padding.
    pieces = torch.arange(size + 1, device=device)
    frame_start = opened + pieces[: frames + 1]
    marks = torch.zeros(rows, size + 1, dtype=torch.int64, device=device)
    frame = marks.scatter(1, frame_start, 1).cumsum(1) - 1
    unit = pieces - frame
    # In float64: whole numbers times a threshold would be fp32.
    bounds = (unit.double() * threshold).scatter(1, frame_start, edge)
    frame, unit = frame[:, :-1], unit[:, :-1]
    real = frame < length

    # closed[j]: frames before the one that completes unit j (S if none does).
    closed = torch.zeros(rows, num_units, dtype=torch.int64, device=device)
    closed = closed.scatter_add(1, opened[:, 1:], torch.ones_like(opened[:, 1:]))
    closed = closed.cumsum(1)
    unit_start = F.pad(closed[:, :-1], (1, 0)) + pieces[:num_units]

    # Unit j < last ends inside frame closed[j]; the last one ends with the utterance.
    columns = pieces[:num_units].double()
    before = closed.clamp(max=frames - 1)
    start = mass.edge.detach().gather(1, before)
    step = mass.edge.detach().gather(1, before + 1) - start
    inside = ((columns + 1) * threshold - start) / step
    ends = torch.where(columns < last, before + inside, length.double())

    return Plan(
        share=torch.where(real, bounds[:, 1:] - bounds[:, :-1], 0.0),
        frame=torch.minimum(frame, (length - 1).clamp(min=0)),
        unit=unit,
        real=real,
        frame_start=frame_start[:, :-1],
        unit_start=unit_start,
        durations=ends - F.pad(ends[:, :-1], (1, 0)),
    )
