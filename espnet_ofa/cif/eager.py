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
with ``index_add``, and for ONNX as ``onnx.py`` says.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from espnet_ofa.cif import onnx
from espnet_ofa.cif.plan import Plan
from espnet_ofa.cif.tracing import is_traced


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
    if torch.onnx.is_in_onnx_export():
        return onnx.mix(frames.to(dtype), plan).to(frames.dtype)
    table, share = frames.to(dtype).flatten(0, 1), plan.share.to(dtype).flatten()
    (rows, size), count = frames.shape[:2], plan.unit_start.size(1)
    row = torch.arange(rows, device=frames.device)[:, None]
    # A row without frames reads another's, for its own may be NaN: its shares are zero.
    real = plan.real[:, :1]
    home = torch.where(real, row, real.int().argmax(0))
    frame = (plan.frame + home * size).flatten()
    unit = (plan.unit + row * count).flatten()
    if is_traced():
        units = _index_add(table, frame, share, unit, rows * count)
    else:
        first = row * plan.frame.size(1)  # piece of each row
        by_frame = (plan.frame_start + first).flatten()
        # A last sum, of no unit, takes all pieces where no row has frames.
        by_unit = (plan.unit_start + first).flatten()
        by_unit = F.pad(by_unit, (0, 1), value=len(share)) * real.any()
        units = _Mix.apply(table, share, frame, unit, by_frame, by_unit)
    return units.unflatten(0, (rows, count)).to(frames.dtype)


class _Mix(torch.autograd.Function):
    """Gather-sum of frames (R, D) into units (V, D), with its transposes."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        frames: Tensor,
        share: Tensor,
        frame: Tensor,
        unit: Tensor,
        by_frame: Tensor,
        by_unit: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(frames, share, frame, unit, by_frame)
        units = _gather_sum(frames, frame, share, by_unit)
        return units.resize_(len(by_unit) - 1, frames.size(1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        frames, share, frame, unit, by_frame = ctx.saved_tensors
        need_frames, need_share = ctx.needs_input_grad[:2]
        grad_frames = grad_share = None
        if need_frames:
            grad_frames = _gather_sum(grad, unit, share, by_frame)
        if need_share:
            grad_share = _dots(frames, frame, grad, unit)
        return grad_frames, grad_share, None, None, None, None


def _gather_sum(table: Tensor, index: Tensor, share: Tensor, start: Tensor) -> Tensor:
    """Sum ``share * table[index]`` over the pieces from one start to the next.

    Args:
        table: (R, D).
        index: (P,) rows of the table.
        share: (P,).
        start: (V,), ascending; the first is 0, the last sum ends at P.

    Returns:
        (V, D).
    """
    return F.embedding_bag(index, table, start, mode="sum", per_sample_weights=share)


def _dots(frames: Tensor, frame: Tensor, grad: Tensor, unit: Tensor) -> Tensor:
    """Dot product per piece of its frame (R, D) and unit gradient (V, D), (P,).

    This is the gradient that torch itself computes for ``per_sample_weights``; calling
    it directly spares two copies of every vector.
    """
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad,
        frames,
        frame,
        frame.new_empty(0),  # offsets: not needed where the bag of each piece is given
        unit,
        0,  # mode "sum"
    )


def _index_add(
    frames: Tensor, frame: Tensor, share: Tensor, unit: Tensor, count: int
) -> Tensor:
    """The same gather-sum, (count, D), in operators that can be traced and exported."""
    parts = frames[frame] * share[:, None]
    return frames.new_zeros(count, frames.size(1)).index_add(0, unit, parts)
