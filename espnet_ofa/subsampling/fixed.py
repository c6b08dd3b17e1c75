"""Compressors of a fixed rate: none, mean, strided convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.subsampling.base import Compressor, CompressorOutput, check_input
from espnet_ofa.subsampling.lengths import (
    subsampled_lengths,
    valid_mask,
    zero_padding,
)
from espnet_ofa.subsampling.rate import Lam, LamRule


class NoCompressor(Compressor):
    """One unit per frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        lam: Lam | LamRule = 0.0,
        num_units: int | None = None,
    ) -> CompressorOutput:
        check_input(lengths, frames, num_units)
        durations = valid_mask(lengths, frames.shape[1]).to(torch.float32)
        return CompressorOutput(frames, lengths, durations)


def window_durations(lengths: Tensor, num_units: int, factor: int) -> Tensor:
    """(B, U) frames in each window of ``factor``; the last may be partial."""
    starts = factor * torch.arange(num_units, device=lengths.device)
    return (lengths[:, None] - starts).clamp(0, factor).to(torch.float32)


def whole_windows(frames: Tensor, lengths: Tensor, factor: int) -> Tensor:
    """Zero the padding and round the number of frames up to whole windows."""
    missing = -frames.shape[1] % factor
    return F.pad(zero_padding(frames, lengths), (0, 0, 0, missing))


def mean_windows(frames: Tensor, lengths: Tensor, factor: int) -> Tensor:
    """Average every ``factor`` frames; padding counts nowhere.

    Args:
        frames: (B, S, D).
        lengths: (B,).
        factor: frames in a window; the last one may be partial.

    Returns:
        (B, ceil(S / factor), D), zero where a window is all padding.
    """
    sums = whole_windows(frames, lengths, factor).unflatten(1, (-1, factor)).sum(2)
    counts = window_durations(lengths, sums.shape[1], factor)
    return sums / counts.clamp(min=1)[..., None].to(sums.dtype)


class WindowCompressor(Compressor):
    """One unit for every ``factor`` frames (fixed length, Meng et al., SLT 2022)."""

    def __init__(self, dim: int, factor: int = 2) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"factor must be at least 1 frame; got {factor}")
        self.factor = factor

    def mix(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, S, D) frames, (B,) lengths -> (B, ceil(S / factor), D) units."""
        raise NotImplementedError

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        lam: Lam | LamRule = 0.0,
        num_units: int | None = None,
    ) -> CompressorOutput:
        check_input(lengths, frames, num_units)
        units = self.mix(frames, lengths)
        durations = window_durations(lengths, units.shape[1], self.factor)
        return CompressorOutput(
            units, subsampled_lengths(lengths, self.factor), durations
        )


class MeanCompressor(WindowCompressor):
    """Average of every ``factor`` frames."""

    def mix(self, frames: Tensor, lengths: Tensor) -> Tensor:
        return mean_windows(frames, lengths, self.factor)


class ConvCompressor(WindowCompressor):
    """Strided convolution over every ``factor`` frames."""

    def __init__(self, dim: int, factor: int = 2) -> None:
        super().__init__(dim, factor)
        self.conv = nn.Conv1d(dim, dim, factor, stride=factor)

    def mix(self, frames: Tensor, lengths: Tensor) -> Tensor:
        x = whole_windows(frames, lengths, self.factor)
        return self.conv(x.transpose(1, 2)).transpose(1, 2)
