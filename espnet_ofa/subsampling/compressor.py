"""Compressors: frames in, units out, behind one interface.

Lambda enters here and nowhere else. Here is CIF, and all of them by name; the interface
is in ``base.py``, those of a fixed rate in ``fixed.py`` and ``squeeze.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from espnet_ofa.cif import integrate_and_count
from espnet_ofa.subsampling.base import Compressor, CompressorOutput, check_input
from espnet_ofa.subsampling.fixed import (
    ConvCompressor,
    MeanCompressor,
    NoCompressor,
)
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.subsampling.predictor import AlphaPredictor
from espnet_ofa.subsampling.rate import (
    DEFAULT_MEAN_ALPHA,
    Lam,
    LamRule,
    compress_weights,
)
from espnet_ofa.subsampling.squeeze import SqueezeCompressor
from espnet_ofa.subsampling.training import in_training_step


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
            check_input(lengths, frames, num_units)
            durations = valid_mask(lengths, frames.shape[1]).to(torch.float32)
            return CompressorOutput(frames, lengths, durations, lam=0.0)
        alpha = self.predictor(frames, lengths)
        if self.anchored and in_training_step(self):
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
            out.units,
            out.lengths,
            out.durations,
            alpha,
            weights,
            out.merged,
            total,
            lam,
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
    "squeeze": SqueezeCompressor,
}


def build_compressor(kind: str, dim: int, **conf) -> Compressor:
    """Build a compressor by name.

    Args:
        kind: ``none | mean | conv | cif | squeeze``.
        dim: width of the frames.
        **conf: arguments of the class.

    Raises:
        ValueError: unknown name.
    """
    if kind not in _KINDS:
        raise ValueError(f"compressor must be one of {', '.join(_KINDS)}; got {kind!r}")
    return _KINDS[kind](dim, **conf)
