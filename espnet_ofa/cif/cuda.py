"""CIF on a GPU: what calls the Triton kernels."""

# Triton is optional and its decorated kernels carry no types.
# pyright: reportMissingImports=false, reportArgumentType=false, reportReturnType=false

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.runtime.interpreter import InterpretedFunction

from espnet_ofa.cif import kernels

_FRAMES = 1024  # frames of a row that a program reads at a time
_DIM = 1024  # most elements of a vector that a program holds


class Mass(NamedTuple):
    """The cumulative mass of a batch, as :func:`kernels.accumulate` leaves it.

    Attributes:
        edge: (B, S + 1) float64.
        fires: (B, S + 1) int32.
        stats: (B, 3) float64: units of each row, units that fired, 1 if a weight is
            negative or not finite.
        lengths: (B,) frames.
        threshold: mass of a unit.
    """

    edge: Tensor
    fires: Tensor
    stats: Tensor
    lengths: Tensor
    threshold: float


def accumulate(
    weights: Tensor, lengths: Tensor, threshold: float, tail_threshold: float
) -> Mass:
    """Accumulate weights (B, S), fp32 or float64, and count units; no host wait."""
    if not (weights.is_cuda or is_interpreted()):
        raise ValueError(
            f"backend 'triton' needs CUDA tensors; got {weights.device}. "
            "Use backend='auto' or 'eager'."
        )
    weights = weights.detach().contiguous()
    rows, size = weights.shape
    wide = {"dtype": torch.float64, "device": weights.device}
    edge = torch.empty(rows, size + 1, **wide)
    fires = torch.empty_like(edge, dtype=torch.int32)
    stats = torch.empty(rows, 3, **wide)
    lengths = lengths.contiguous()
    with torch.cuda.device_of(weights):
        kernels.accumulate[(rows,)](
            weights, lengths, edge, fires, stats, size,
            THRESHOLD=float(threshold), TAIL=float(tail_threshold),
            BLOCK=min(_FRAMES, triton.next_power_of_2(size)),
        )  # fmt: skip
    return Mass(edge, fires, stats, lengths, float(threshold))


def mix(
    frames: Tensor, weights: Tensor, mass: Mass, num_units: int
) -> tuple[Tensor, Tensor]:
    """Sum frames into units.

    Args:
        frames: (B, S, D).
        weights: (B, S) that ``mass`` was made of; they get the gradient.
        mass: of the weights.
        num_units: columns of the output.

    Returns:
        (B, num_units, D) units, dtype of the frames, and (B, num_units) durations,
        float64 and without gradient.
    """
    with torch.cuda.device_of(frames):
        return _Mix.apply(frames, weights, num_units, *mass)  # type: ignore[return-value]


def is_interpreted() -> bool:
    """True if the kernels run on the CPU."""
    return isinstance(kernels.mix, InterpretedFunction)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        frames: Tensor,
        weights: Tensor,
        num_units: int,
        edge: Tensor,
        fires: Tensor,
        stats: Tensor,
        lengths: Tensor,
        threshold: float,
    ) -> tuple[Tensor, Tensor]:
        frames = frames.contiguous()
        rows, size, dim = frames.shape
        units = frames.new_empty(rows, num_units, dim)
        durations = edge.new_empty(rows, num_units)
        block = _block(dim)
        kernels.mix[(rows * num_units, triton.cdiv(dim, block))](
            frames, edge, fires, stats, lengths, units, durations,
            size, num_units, dim,
            THRESHOLD=threshold, ACC=_accumulator(frames), BLOCK=block,
        )  # fmt: skip
        ctx.save_for_backward(frames, edge, fires, stats, lengths)
        ctx.threshold, ctx.dtype = threshold, weights.dtype
        ctx.mark_non_differentiable(durations)
        return units, durations

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # noqa: D102
        frames, edge, fires, stats, lengths = ctx.saved_tensors
        grad = grad.contiguous()
        (rows, size, dim), count = frames.shape, grad.size(1)
        grad_frames = torch.empty_like(frames)
        wide = torch.float64 in (frames.dtype, ctx.dtype)
        moves = frames.new_empty(
            3, rows, size, dtype=torch.float64 if wide else torch.float32
        )
        kernels.frame_gradients[(rows * size,)](
            frames, grad, edge, fires, stats, lengths, grad_frames, moves,
            size, count, dim,
            THRESHOLD=ctx.threshold, ACC=_accumulator(moves), BLOCK=_block(dim),
        )  # fmt: skip
        grad_weights = None
        if ctx.needs_input_grad[1]:
            grad_weights = frames.new_empty(rows, size, dtype=ctx.dtype)
            kernels.weight_gradients[(rows,)](
                moves, edge, stats, lengths, grad_weights, size, count,
                THRESHOLD=ctx.threshold,
                BLOCK=min(_FRAMES, triton.next_power_of_2(size)),
            )  # fmt: skip
        return (
            grad_frames if ctx.needs_input_grad[0] else None,
            grad_weights,
            *[None] * 6,
        )


def _block(dim: int) -> int:
    return min(_DIM, triton.next_power_of_2(dim))


def _accumulator(tensor: Tensor) -> Any:
    return tl.float64 if tensor.dtype == torch.float64 else tl.float32
