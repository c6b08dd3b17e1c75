"""Triton kernels of the gather-sum, for CUDA.

The plan is the one of ``plan.py``. Piece e of a row belongs to frame t and unit j with
``t + j = e``, so a program that owns one of them knows the other without an index
table, and no program writes where another does: no atomics, the same result every run.
Frames are read in their own dtype and accumulated in fp32 (float64 for float64).

Set TRITON_INTERPRET=1 before the first import to run them on CPU tensors (tests).
"""

# Triton is optional and its decorated kernels carry no types.
# pyright: reportMissingImports=false

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.runtime.interpreter import InterpretedFunction

from espnet_ofa.cif.plan import Plan

_BLOCK = 256  # elements of D per program


def mix(frames: Tensor, plan: Plan, lengths: Tensor) -> Tensor:
    """Sum the frames (B, S, D) into units (B, N, D), dtype of the frames."""
    if not (frames.is_cuda or _interpreted()):
        raise ValueError(
            f"backend 'triton' needs CUDA tensors; got {frames.device}. "
            "Use backend='auto' or 'eager'."
        )
    dtype = torch.float64 if frames.dtype == torch.float64 else torch.float32
    share = plan.share.to(dtype)
    with torch.cuda.device_of(frames):
        return _Mix.apply(frames, share, plan.frame_start, plan.unit_start, lengths)


class _Mix(torch.autograd.Function):
    """Gather-sum of frames into units, with its transposes."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        frames: Tensor,
        share: Tensor,
        frame_start: Tensor,
        unit_start: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        frames, share = frames.contiguous(), share.contiguous()
        rows, size, dim = frames.shape
        units = frames.new_empty(rows, unit_start.size(1), dim)
        ctx.save_for_backward(frames, share, frame_start, lengths)
        grid = (rows * units.size(1), math.ceil(dim / _BLOCK))
        _launch(
            _gather_sum, grid,
            frames, share, unit_start.contiguous(), lengths, units,
            units.size(1), size, share.size(1), dim, BY_UNIT=True,
        )  # fmt: skip
        return units

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        frames, share, frame_start, lengths = ctx.saved_tensors
        grad = grad.contiguous()
        rows, size, dim = frames.shape
        units, pieces = grad.size(1), share.size(1)
        grad_frames = grad_share = None
        if ctx.needs_input_grad[0]:
            grad_frames = torch.empty_like(frames)
            _launch(
                _gather_sum, (rows * size, math.ceil(dim / _BLOCK)),
                grad, share, frame_start.contiguous(), lengths, grad_frames,
                size, units, pieces, dim, BY_UNIT=False,
            )  # fmt: skip
        if ctx.needs_input_grad[1]:
            grad_share = torch.zeros_like(share)
            _launch(
                _dots, (rows * size,),
                frames, grad, frame_start.contiguous(), lengths, grad_share,
                size, units, pieces, dim,
            )  # fmt: skip
        return grad_frames, grad_share, None, None, None


def _launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Run a kernel that accumulates in float64 if given any, else fp32."""
    wide = torch.float64 in (args[0].dtype, args[1].dtype)
    accumulator = tl.float64 if wide else tl.float32
    kernel[grid](*args, **options, ACC=accumulator, BLOCK=_BLOCK)


def _interpreted() -> bool:
    """True if the kernels of this module run on the CPU."""
    return isinstance(_dots, InterpretedFunction)


@triton.jit
def _gather_sum(
    table, share, starts, lengths, out, groups, table_rows, pieces, dim,
    BY_UNIT: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK elements of one unit (or, transposed, of one frame).

    Args:
        table: (B, table_rows, dim) frames by unit; gradients of units by frame.
        share: (B, pieces).
        starts: (B, groups) first piece of each unit (frame).
        lengths: (B,) frames.
        out: (B, groups, dim).
    """
    owner = tl.program_id(0).to(tl.int64)
    row = owner // groups
    group = owner % groups
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    length = tl.load(lengths + row)
    start = tl.load(starts + owner)
    inner = group + 1 < groups
    stop = tl.load(starts + owner + 1, mask=inner, other=pieces)
    if BY_UNIT:  # padding frames close the last unit's pieces
        stop = tl.minimum(stop, length + group)
    else:
        stop = tl.where(group < length, stop, start)
    total = tl.zeros([BLOCK], dtype=ACC)
    for piece in range(start, stop):
        weight = tl.load(share + row * pieces + piece)
        place = (row * table_rows + piece - group) * dim + column
        total += weight * tl.load(table + place, mask=column < dim, other=0.0).to(ACC)
    tl.store(
        out + owner * dim + column,
        total.to(out.dtype.element_ty),
        mask=column < dim,
    )


@triton.jit
def _dots(
    frames, grad, frame_start, lengths, out, size, units, pieces, dim,
    ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: the dot products of one frame with the gradients of its units.

    Args:
        frames: (B, size, dim).
        grad: (B, units, dim).
        frame_start: (B, size) first piece of each frame.
        lengths: (B,) frames.
        out: (B, pieces), zero on entry.
    """
    owner = tl.program_id(0).to(tl.int64)
    row = owner // size
    frame = owner % size
    start = tl.load(frame_start + owner)
    inner = frame + 1 < size
    stop = tl.load(frame_start + owner + 1, mask=inner, other=pieces)
    stop = tl.where(frame < tl.load(lengths + row), stop, start)
    for piece in range(start, stop):
        total = tl.zeros([BLOCK], dtype=ACC)
        for first in range(0, dim, BLOCK):
            column = first + tl.arange(0, BLOCK)
            here = column < dim
            x = tl.load(frames + owner * dim + column, mask=here, other=0.0)
            place = (row * units + piece - frame) * dim + column
            total += x.to(ACC) * tl.load(grad + place, mask=here, other=0.0).to(ACC)
        tl.store(out + row * pieces + piece, tl.sum(total, axis=0))
