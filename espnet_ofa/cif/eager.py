"""Vectorised CIF in plain torch: CPU, GPU, any weights >= 0, traceable to ONNX.

The plan (see ``plan.py``) cuts the frames into pieces, each with a frame, a unit and a
share. What is left is one sparse matrix product, ``units = W @ frames``, whose entries
are the pieces, S + N - 1 of them in a row instead of the S x N of a dense matrix. Since
pieces are contiguous by unit and by frame, the product and both its derivatives are
gather-sums that read every vector about once:

- forward: unit j is the sum over its pieces of share x frame;
- gradient of the frames: frame t is the sum over its pieces of share x gradient of the
  unit, the same pieces grouped by frame;
- gradient of the shares: one dot product of frame and gradient per piece. Autograd
  carries it through the plan to the weights. Moving the boundary after frame t moves
  mass between two neighbouring pieces of one unit j, hence
  ``dL/dC_t = g_j . (x_t - x_{t+1})``, and the weights get its reverse cumulative sum.

A gather-sum is what ``embedding_bag`` computes. While tracing, the same sum is written
with ``index_add``, which every exporter knows.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from espnet_ofa.cif.plan import Plan


def mix(frames: Tensor, plan: Plan) -> Tensor:
    """Sum the frames into units.

    Args:
        frames: (B, S, D).
        plan: the pieces, N units.

    Returns:
        (B, N, D) units, accumulated in fp32 (float64 for float64 frames) and cast to
        the dtype of the frames.
    """
    dtype = torch.float64 if frames.dtype == torch.float64 else torch.float32
    table, share = frames.to(dtype), plan.share.to(dtype)
    if is_traced():
        units = _index_add(table, share, plan)
    else:
        index = (plan.frame, plan.unit, plan.frame_start, plan.unit_start)
        units = _Mix.apply(table, share, *index)
    # A row without frames has shares of zero, but frames that may be NaN.
    units = units.masked_fill(~plan.real[:, :1, None], 0.0)
    return units.to(frames.dtype)


def is_traced() -> bool:
    """True under torch.export, torch.compile and torch.onnx.export."""
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


class _Mix(torch.autograd.Function):
    """Gather-sum of frames (B, S, D) into units (B, N, D), with its transposes."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        frames: Tensor,
        share: Tensor,
        frame: Tensor,
        unit: Tensor,
        frame_start: Tensor,
        unit_start: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(frames, share, frame, unit, frame_start)
        return _gather_sum(frames, frame, share, unit_start)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        frames, share, frame, unit, frame_start = ctx.saved_tensors
        need_frames, need_share = ctx.needs_input_grad[:2]
        grad_frames = grad_share = None
        if need_frames:
            grad_frames = _gather_sum(grad, unit, share, frame_start)
        if need_share:
            grad_share = _dots(frames, frame, grad, unit)
        return grad_frames, grad_share, None, None, None, None


def _gather_sum(table: Tensor, index: Tensor, share: Tensor, start: Tensor) -> Tensor:
    """Sum ``share * table[index]`` over the pieces from one start to the next.

    Args:
        table: (B, R, D).
        index: (B, E) rows of the table.
        share: (B, E).
        start: (B, N), ascending; the first is 0, the last sum ends at E.

    Returns:
        (B, N, D).
    """
    rows, pieces = index.shape
    row = torch.arange(rows + 1, device=index.device)[:, None]
    offsets = torch.cat([(start + row[:-1] * pieces).flatten(), row[-1] * pieces])
    sums = F.embedding_bag(
        (index + row[:-1] * table.size(1)).flatten(),
        table.flatten(0, 1),
        offsets,
        mode="sum",
        per_sample_weights=share.flatten(),
        include_last_offset=True,
    )
    return sums.view(rows, -1, table.size(2))


def _dots(frames: Tensor, frame: Tensor, grad: Tensor, unit: Tensor) -> Tensor:
    """Dot product per piece of its frame (B, S, D) and unit gradient (B, N, D).

    This is the gradient that torch itself computes for ``per_sample_weights``; calling
    it directly spares two copies of every vector.

    Returns:
        (B, E).
    """
    row = torch.arange(len(frame), device=frame.device)[:, None]
    dots = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad.flatten(0, 1),
        frames.flatten(0, 1),
        (frame + row * frames.size(1)).flatten(),
        frame.new_empty(0),  # offsets: not needed where the bag of each piece is given
        (unit + row * grad.size(1)).flatten(),
        0,  # mode "sum"
    )
    return dots.view_as(frame)


def _index_add(frames: Tensor, share: Tensor, plan: Plan) -> Tensor:
    """The same gather-sum in operators that can be traced and exported."""
    rows, units = plan.unit_start.shape
    index = plan.frame[..., None].expand(-1, -1, frames.size(2))
    parts = frames.gather(1, index) * share[..., None]
    row = torch.arange(rows, device=frames.device)[:, None] * units
    sums = frames.new_zeros(rows * units, frames.size(2))
    sums = sums.index_add(0, (plan.unit + row).flatten(), parts.flatten(0, 1))
    return sums.view(rows, units, frames.size(2))
