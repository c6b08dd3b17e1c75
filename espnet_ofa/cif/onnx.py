"""The mixing of frames into units in operators that ONNX has.

ONNX has no segment sum. ScatterND with addition is one on paper, but ONNX Runtime adds
from several threads without a lock and loses terms where an index comes twice (seen in
1.31, reported there as issues 18048 and 23396). A dense matrix of weights grows with
the square of the length. So a unit is a difference of cumulative sums, in float64,
since the sum over an utterance is much larger than a unit: linear in time and memory,
and every number is written once.
"""

import torch
from torch import Tensor

from espnet_ofa.cif.plan import Plan


def mix(frames: Tensor, plan: Plan) -> Tensor:
    """Sum the frames into units.

    A frame that n units share has n pieces. Its last piece goes into the cumulative
    sum; every other one completes a unit and is added to that alone.

    Args:
        frames: (B, S, D).
        plan: the pieces, N units.

    Returns:
        (B, N, D), of the dtype of the frames.
    """
    rows, size, _ = frames.shape
    units, pieces = plan.unit_start.size(1), plan.share.size(1)
    share = plan.share.to(frames.dtype)
    columns = torch.arange(units, device=frames.device)

    # closed[j]: the frame that completes unit j, S if none does.
    closed = plan.unit_start[:, 1:] - columns[1:]
    closed = torch.cat([closed, torch.full_like(plan.unit_start[:, :1], size)], 1)
    full = (closed < size).sum(1, keepdim=True)  # units that some frame completes
    length = plan.real.sum(1, keepdim=True) - full

    opens = torch.cat([plan.frame_start[:, 1:] - 1, full + size - 1], 1)
    total = (frames * share.gather(1, opens)[..., None]).double().cumsum(1)
    # Nothing behind the end is read: padding may hold NaN.
    until = torch.minimum(closed, length)
    total = torch.where(
        (until > 0)[..., None], _rows(total, (until - 1).clamp(min=0)), 0.0
    )
    inner = torch.cat([total[:, :1], total[:, 1:] - total[:, :-1]], 1)

    piece = (closed + columns).clamp(max=pieces - 1)
    share = torch.where(closed < length, share.gather(1, piece), 0.0)
    frame = torch.minimum(closed, (length - 1).clamp(min=0))
    out = inner.to(frames.dtype) + _rows(frames, frame) * share[..., None]
    return torch.where(length[..., None] > 0, out, 0.0)


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """(B, R, D), (B, N) -> (B, N, D): rows of a table; gather() wants N x D indices."""
    start = torch.arange(table.size(0), device=table.device)[:, None] * table.size(1)
    rows = table.flatten(0, 1).index_select(0, (index + start).flatten())
    return rows.unflatten(0, (table.size(0), index.size(1)))
