"""What a compressor is: its output, its interface, and the check of its input."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from espnet_ofa.cif.checks import check_lengths
from espnet_ofa.cif.tracing import is_traced
from espnet_ofa.subsampling.rate import Lam, LamRule


class CompressorOutput(NamedTuple):
    """What a compressor returns.

    Attributes:
        units: (B, U, D).
        lengths: (B,) units that are not padding, int64.
        durations: (B, U) frames that each unit covers; each row sums to its frames.
        alpha: (B, S) predicted weights before lambda, or None where nothing predicts.
        weights: (B, S) weights after lambda, or None.
        merged: (B,) bool, True where ``num_units`` was too small and the units beyond
            it were merged into the last one; None where nothing can be merged.
        total_units: sum of ``lengths``, known to the host without another wait; None
            where nothing waited: with ``num_units``, or where units are not counted.
        lam: that made these units: a number, 0-d, (1,) or (B,) tensor; None where a
            compressor has none.
        chunks: (B, U) the chunk in which each unit fires, where an upstream is cut into
            chunks; see :func:`espnet_ofa.subsampling.chunks.chunks_of_units`.
    """

    units: Tensor
    lengths: Tensor
    durations: Tensor
    alpha: Tensor | None = None
    weights: Tensor | None = None
    merged: Tensor | None = None
    total_units: int | None = None
    lam: Lam | None = None
    chunks: Tensor | None = None


class Compressor(nn.Module):
    """Interface: ``compressor(frames (B, S, D), lengths (B,), lam)``."""

    uses_lam = False
    anchored = False  # whether it holds its rate itself, in training
    positional = False  # whether it gives units their positions

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        lam: Lam | LamRule = 0.0,
        num_units: int | None = None,
    ) -> CompressorOutput:
        """Compress.

        Args:
            frames: (B, S, D).
            lengths: (B,) frames that are not padding.
            lam: ignored by compressors of a fixed rate.
            num_units: likewise; their output's size follows from that of the input.
                But where it is given, nothing waits for the device.

        Raises:
            ValueError: an utterance is empty, or longer than the frames; with
                ``num_units`` nobody looks.
        """
        raise NotImplementedError


def check_input(lengths: Tensor, frames: Tensor, num_units: int | None) -> None:
    """What the operator checks, for those that do not run it; the one host wait."""
    if num_units is None and not is_traced():
        check_lengths(lengths, frames.shape[1])
