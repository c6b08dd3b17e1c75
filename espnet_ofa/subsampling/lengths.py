"""One owner for the arithmetic of lengths and padding."""

from __future__ import annotations

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, True where an element is not padding."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def zero_padding(frames: Tensor, lengths: Tensor) -> Tensor:
    """Replace what lies behind the lengths with zeros, NaN included.

    Args:
        frames: (B, S, D).
        lengths: (B,).
    """
    mask = valid_mask(lengths, frames.shape[1])
    return torch.where(mask[..., None], frames, frames.new_zeros(()))


def subsampled_lengths(lengths: Tensor, factor: int) -> Tensor:
    """Units left after pooling ``factor`` frames; a partial last window counts.

    Args:
        lengths: (B,) frames.
        factor: frames pooled into one unit.
    """
    return (lengths + factor - 1).div(factor, rounding_mode="floor")
