"""What is exported to ONNX: an upstream with lambda as an input, in plain operators."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.subsampling.rate import MAX_LAM
from espnet_ofa.upstream import OFAUpstream
from espnet_ofa.upstream.extractor import HOP, WINDOW, LogMelExtractor

#: Compressors whose graph serves every length, and every lambda if they have one.
COMPRESSORS = ("none", "mean", "conv", "cif")


class UpstreamGraph(nn.Module):
    """The forward of an upstream, traceable for any batch, length and lambda.

    A graph cannot raise errors, so bad input has a defined result: lambda outside
    [0, 2] gives NaN, lengths outside [1, L] count as the nearest of these.

    Args:
        upstream: in eval mode, changed: log-mel takes its spectrum from a matrix.
        num_layers: run only so many layers; all by default.
        every: return all hidden states, not only the topmost.

    Raises:
        ValueError: the upstream has a part that cannot be exported.
    """

    def __init__(
        self, upstream: OFAUpstream, num_layers: int | None = None, every: bool = False
    ) -> None:
        super().__init__()
        check_exportable(upstream, num_layers)
        self.upstream = upstream
        self.num_layers = num_layers
        self.every = every
        self.uses_lam = upstream.compressor.uses_lam
        extractor = upstream.extractor
        if isinstance(extractor, LogMelExtractor):
            self.spectrum = PowerSpectrum(extractor)
            extractor.power = self.spectrum.forward  # type: ignore[method-assign]

    def forward(
        self, wave: Tensor, lengths: Tensor, lam: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """(B, L) samples, (B,) lengths, 0-d lambda -> states, unit lengths, durations.

        Without ``lam`` for compressors of a fixed rate. The states, (B, U, D), are one
        or, with ``every``, one more than layers.
        """
        upstream = self.upstream
        lengths = lengths.clamp(1, wave.shape[1])
        # Not max(), which would decide for the size of the example.
        missing = cast(int, torch.sym_max(WINDOW - wave.shape[1], 0))
        wave = F.pad(wave, (0, missing))
        frames, n_frames = upstream.extract(wave, lengths)
        if lam is not None:
            lam = torch.where((lam >= 0) & (lam <= MAX_LAM), lam, math.nan)
        out = upstream.compress(frames, n_frames, lam)
        if self.uses_lam:
            # The number of units is unknown to the tracer, which asks whether a mask of
            # one column must be repeated: at one unit that changes nothing.
            torch._check(out.units.shape[1] != 1)
        encoded = upstream.encode_units(out, self.num_layers)
        states = encoded.states if self.every else encoded.states[-1:]
        return *states, encoded.lengths, encoded.durations.float()


class PowerSpectrum(nn.Module):
    """``LogMelExtractor.power`` as a convolution with windowed cosines and sines.

    ONNX has a DFT, but ONNX Runtime computes it on one thread, in twice the time.
    """

    def __init__(self, extractor: LogMelExtractor) -> None:
        super().__init__()
        time = torch.arange(WINDOW, dtype=torch.float64)
        bins = torch.arange(extractor.n_fft // 2 + 1, dtype=torch.float64)
        turns = bins[:, None] * time % extractor.n_fft / extractor.n_fft
        basis = torch.cat([turns.mul(2 * math.pi).cos(), turns.mul(2 * math.pi).sin()])
        basis = basis * extractor.window.double().cpu()  # type: ignore[operator]
        self.basis: Tensor
        self.register_buffer("basis", basis.float()[:, None])  # (2 * bins, 1, WINDOW)

    def forward(self, wave: Tensor, size: int) -> Tensor:
        """(B, L) samples -> (B, size, bins) power of the first windows, 10 ms apart."""
        hop = HOP // 2
        wave = wave[:, None, : (size - 1) * hop + WINDOW]
        parts = F.conv1d(wave, self.basis, stride=hop).transpose(1, 2)
        real, imaginary = parts.chunk(2, dim=-1)
        return real.square() + imaginary.square()


def check_exportable(upstream: OFAUpstream, num_layers: int | None) -> None:
    """Raise ValueError for what the graph cannot hold."""
    config = upstream.config
    if config.compressor not in COMPRESSORS:
        raise ValueError(
            f"compressor {config.compressor!r} cannot be exported to ONNX; expected "
            f"one of {', '.join(COMPRESSORS)}"
        )
    setting = upstream.squeeze_now()
    if upstream.transformer.merging is not None or setting.query * setting.key > 1:
        raise ValueError(
            "an upstream with merge, query_pool or key_pool cannot be exported to ONNX"
        )
    if upstream.chunk is not None:
        raise ValueError(
            "an upstream with chunk cannot be exported to ONNX, whose graphs keep no "
            "state of a stream; run it with espnet_ofa.upstream.streaming"
        )
    if num_layers is not None and not 0 <= num_layers <= config.layers:
        raise ValueError(
            f"num_layers must be between 0 and {config.layers}; got {num_layers}"
        )
