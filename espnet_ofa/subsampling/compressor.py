"""Compressors: frames in, units out, behind one interface.

Lambda enters here and nowhere else.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.cif import integrate_and_count
from espnet_ofa.cif.checks import check_lengths
from espnet_ofa.cif.eager import is_traced
from espnet_ofa.subsampling.lengths import (
    subsampled_lengths,
    valid_mask,
    zero_padding,
)
from espnet_ofa.subsampling.predictor import AlphaPredictor
from espnet_ofa.subsampling.rate import (
    DEFAULT_MEAN_ALPHA,
    Lam,
    LamRule,
    compress_weights,
)


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
    """

    units: Tensor
    lengths: Tensor
    durations: Tensor
    alpha: Tensor | None = None
    weights: Tensor | None = None
    merged: Tensor | None = None
    total_units: int | None = None


class Compressor(nn.Module):
    """Interface: ``compressor(frames (B, S, D), lengths (B,), lam)``."""

    uses_lam = False
    anchored = False  # whether it holds its rate itself, in training

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


def _check(lengths: Tensor, frames: Tensor, num_units: int | None) -> None:
    """What the operator checks, for those that do not run it; the one host wait."""
    if num_units is None and not is_traced():
        check_lengths(lengths, frames.shape[1])


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
        _check(lengths, frames, num_units)
        durations = valid_mask(lengths, frames.shape[1]).to(torch.float32)
        return CompressorOutput(frames, lengths, durations)


def _window_durations(lengths: Tensor, num_units: int, factor: int) -> Tensor:
    """(B, U) frames in each window of ``factor``; the last may be partial."""
    starts = factor * torch.arange(num_units, device=lengths.device)
    return (lengths[:, None] - starts).clamp(0, factor).to(torch.float32)


def _whole_windows(frames: Tensor, lengths: Tensor, factor: int) -> Tensor:
    """Zero the padding and round the number of frames up to whole windows."""
    missing = -frames.shape[1] % factor
    return F.pad(zero_padding(frames, lengths), (0, 0, 0, missing))


class MeanCompressor(Compressor):
    """Average of every ``factor`` frames (fixed length, Meng et al., SLT 2022)."""

    def __init__(self, dim: int, factor: int = 2) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"factor must be at least 1 frame; got {factor}")
        self.factor = factor

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        lam: Lam | LamRule = 0.0,
        num_units: int | None = None,
    ) -> CompressorOutput:
        _check(lengths, frames, num_units)
        x = _whole_windows(frames, lengths, self.factor)
        sums = x.unflatten(1, (-1, self.factor)).sum(2)  # (B, U, D)
        durations = _window_durations(lengths, sums.shape[1], self.factor)
        units = sums / durations.clamp(min=1)[..., None].to(sums.dtype)
        return CompressorOutput(
            units, subsampled_lengths(lengths, self.factor), durations
        )


class ConvCompressor(Compressor):
    """Strided convolution over every ``factor`` frames (Meng et al., SLT 2022)."""

    def __init__(self, dim: int, factor: int = 2) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"factor must be at least 1 frame; got {factor}")
        self.factor = factor
        self.conv = nn.Conv1d(dim, dim, factor, stride=factor)

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        lam: Lam | LamRule = 0.0,
        num_units: int | None = None,
    ) -> CompressorOutput:
        _check(lengths, frames, num_units)
        x = _whole_windows(frames, lengths, self.factor)
        units = self.conv(x.transpose(1, 2)).transpose(1, 2)
        durations = _window_durations(lengths, units.shape[1], self.factor)
        return CompressorOutput(
            units, subsampled_lengths(lengths, self.factor), durations
        )


class CIFCompressor(Compressor):
    """Continuous integrate-and-fire over weights that lambda has mixed.

    Args:
        dim: width of the frames.
        target_rate: mean alpha to start from; see :class:`AlphaPredictor`.
        kernel: width of the predictor's convolution in frames.
        hidden: channels of the predictor; the frames' width by default.
        threshold: mass of one unit.
        tail_threshold: mass (of a unit) that an utterance's end needs to become a unit.
        rate_gradient: let the task's gradient change how many units there are. By
            default it only moves them: left free, an SSL loss asks for ever more
            units, and CTC, while it still predicts blanks, for ever fewer. The rate
            then belongs to guidance or, without guidance, to an anchor that shifts
            alpha back to its target (``anchored``); a price on units needs a learned
            lambda.
        backend: see :func:`espnet_ofa.cif.integrate_and_fire`.
    """

    uses_lam = True

    def __init__(
        self,
        dim: int,
        target_rate: float = DEFAULT_MEAN_ALPHA,
        kernel: int = 5,
        hidden: int | None = None,
        threshold: float = 1.0,
        tail_threshold: float = 0.5,
        rate_gradient: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.predictor = AlphaPredictor(dim, target_rate, kernel, hidden)
        self.threshold = threshold
        self.tail_threshold = tail_threshold
        self.rate_gradient = rate_gradient
        self.backend = backend
        # Guidance has a target of its own: who guides alpha switches this off.
        self.anchored = not rate_gradient

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
            lam: number, 0-d, (1,) or (B,) tensor; or a rule that makes one of raw alpha
                (B, S) and lengths (B,), e.g. to cap it per utterance.
            num_units: upper bound on the units, so that nothing waits for the device;
                the output has exactly that many columns.
        """
        keeps_all = isinstance(lam, (int, float)) and lam == 0 and self.threshold == 1
        # In training DDP wants every gradient; a bound on the units may merge some.
        if keeps_all and not self.training and num_units is None:
            _check(lengths, frames, num_units)
            durations = valid_mask(lengths, frames.shape[1]).to(torch.float32)
            return CompressorOutput(frames, lengths, durations)
        alpha = self.predictor(frames, lengths)
        if self.anchored and self.training and torch.is_grad_enabled():
            self.predictor.anchor(alpha, lengths)
        if callable(lam):
            lam = lam(alpha, lengths)
        weights = compress_weights(
            alpha if self.rate_gradient else _hold_rate(alpha), lam
        )
        out, total = integrate_and_count(
            frames,
            weights,
            lengths,
            threshold=self.threshold,
            tail_threshold=self.tail_threshold,
            num_units=num_units,
            backend=self.backend,
        )
        return CompressorOutput(
            out.units, out.lengths, out.durations, alpha, weights, out.merged, total
        )


def _hold_rate(alpha: Tensor) -> Tensor:
    """The same alpha, whose gradient asks for no change of each utterance's sum.

    (B, S) -> (B, S). That is exact where logits are free; the predictor's frames share
    weights, and Adam rescales steps, so what is left of a drift is guidance's or the
    anchor's to undo. With alpha = sigmoid(z), a step of -alpha' g on z changes the sum
    by -(alpha'^2 . g). Taking the mean of g, weighted by alpha'^2, out of g makes that
    zero. The value is untouched, so that fires are those of evaluation.
    """
    slope = (alpha * (1 - alpha)).detach().square()
    share = slope / slope.sum(1, keepdim=True).clamp(min=1e-12)
    held = alpha - share * alpha.sum(1, keepdim=True)  # its transpose acts on gradients
    return alpha.detach() + (held - held.detach())


_KINDS: dict[str, type[Compressor]] = {
    "none": NoCompressor,
    "mean": MeanCompressor,
    "conv": ConvCompressor,
    "cif": CIFCompressor,
}


def build_compressor(kind: str, dim: int, **conf) -> Compressor:
    """Build a compressor by name.

    Args:
        kind: ``none | mean | conv | cif``.
        dim: width of the frames.
        **conf: arguments of the class.

    Raises:
        ValueError: unknown name.
    """
    if kind not in _KINDS:
        raise ValueError(f"compressor must be one of {', '.join(_KINDS)}; got {kind!r}")
    return _KINDS[kind](dim, **conf)
