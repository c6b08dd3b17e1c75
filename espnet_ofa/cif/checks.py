"""Argument checks of the operator; those of shapes never read a tensor's values."""

import torch
from torch import Tensor

from espnet_ofa.cif.types import NO_MASS


def check_shapes(
    frames: Tensor,
    weights: Tensor,
    lengths: Tensor | None,
    names: tuple[str, str] = ("frames", "weights"),
) -> None:
    """Raise ValueError unless frames are (B, S, D), weights (B, S), lengths (B,).

    Args:
        frames: floating point, none of its sizes 0.
        weights: floating point.
        lengths: integers, or None.
        names: what the caller calls the first two, for the message.
    """
    if frames.dim() != 3 or 0 in frames.shape:
        raise ValueError(
            f"{names[0]} must be (batch, {names[0]}, dim), at least one of each; "
            f"got {tuple(frames.shape)}"
        )
    if weights.shape != frames.shape[:2]:
        raise ValueError(
            f"{names[1]} must be {tuple(frames.shape[:2])}, batch and {names[0]}; "
            f"got {tuple(weights.shape)}"
        )
    for name, tensor in zip(names, (frames, weights), strict=True):
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point; got {tensor.dtype}")
    if lengths is None:
        return
    if lengths.shape != frames.shape[:1]:
        raise ValueError(
            f"lengths must be ({frames.size(0)},), one per row; "
            f"got {tuple(lengths.shape)}"
        )
    if lengths.is_floating_point() or lengths.is_complex():
        raise ValueError(f"lengths must be integers; got {lengths.dtype}")


def check_options(
    threshold: float, tail_threshold: float, num_units: int | None
) -> None:
    """Raise ValueError for options outside their range."""
    if not threshold > 0:
        raise ValueError(f"threshold must be > 0; got {threshold}")
    if not NO_MASS <= tail_threshold <= 1:  # lighter ones have no direction
        raise ValueError(
            f"tail_threshold must be in [{NO_MASS:g}, 1]; got {tail_threshold}"
        )
    if num_units is not None and num_units < 1:
        raise ValueError(f"num_units must be >= 1; got {num_units}")


def check_lengths(lengths: Tensor, size: int) -> None:
    """Raise ValueError naming the first of (B,) lengths outside [1, size]; waits."""
    for row, length in enumerate(lengths.tolist()):
        if length < 1:
            raise ValueError(
                f"row {row} is empty: its length is {length}, expected at least 1 "
                "frame; remove the utterance from the batch"
            )
        if length > size:
            raise ValueError(
                f"row {row} has length {length}, but only {size} frames were given"
            )


def check_values(weights: Tensor, lengths: Tensor) -> None:
    """Raise ValueError naming the first bad row or weight; waits for the host.

    Args:
        weights: (B, S); must be finite and >= 0 up to ``lengths``.
        lengths: (B,); must be between 1 and S.
    """
    size = weights.size(1)
    check_lengths(lengths, size)
    valid = torch.arange(size, device=weights.device) < lengths[:, None]
    bad = (valid & ~((weights >= 0) & weights.isfinite())).nonzero()
    if len(bad):
        row, frame = bad[0].tolist()
        raise ValueError(
            f"row {row}, frame {frame}: weight {weights[row, frame].item()}, "
            f"expected finite and >= 0 ({len(bad)} such weights in the batch)"
        )
