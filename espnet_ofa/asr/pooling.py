"""Pooling units into one vector per utterance, by what they cover or all alike.

A unit may be one frame or twenty. The plain mean over units listens to where they are
dense and so changes with lambda; weighted by durations it is the mean over frames,
whatever the frame period. ESPnet's classification and speaker models tell their pooling
how many units there are and no more, so the pooling asks the adapter that made them.
"""

from __future__ import annotations

from typing import Any

import torch
from espnet2.cls.decoder.abs_decoder import AbsDecoder
from espnet2.spk.pooling.abs_pooling import AbsPooling
from torch import Tensor, nn

from espnet_ofa.asr.adapter import Adapter
from espnet_ofa.asr.building import parts_built
from espnet_ofa.subsampling.lengths import valid_mask

WEIGHTS = ("duration", "equal")
_LEAST_VARIANCE = 1e-6  # bounds the gradient of the square root


def pool(units: Tensor, weights: Tensor, std: bool = False) -> Tensor:
    """Weighted mean over units and, if wanted, standard deviation.

    Args:
        units: (B, U, D).
        weights: (B, U), zero on padding, not all zero.
        std: append the standard deviation (as x-vectors do).

    Returns:
        (B, D), or (B, 2 D) with ``std``.
    """
    shares = weights / weights.sum(1, keepdim=True)
    shares = shares[..., None].to(torch.promote_types(units.dtype, torch.float32))
    # Padding may hold anything, infinity included, and that times zero is not zero.
    values = units.to(shares.dtype).masked_fill(shares == 0, 0.0)
    mean = (shares * values).sum(1)
    if std:
        variance = (shares * (values - mean[:, None]).square()).sum(1)
        mean = torch.cat([mean, variance.clamp(min=_LEAST_VARIANCE).sqrt()], 1)
    return mean.to(units.dtype)


class UnitPooling(nn.Module):
    """Pools units, and finds out how long they are.

    Args:
        weights: ``duration`` for the frames that each unit covers, ``equal`` for the
            plain mean over units.
        std: append the standard deviation.

    Raises:
        ValueError: unknown weights, or durations where nothing in the model has them.
    """

    def __init__(self, weights: str, std: bool) -> None:
        super().__init__()
        if weights not in WEIGHTS:
            raise ValueError(
                f"weights must be one of {', '.join(WEIGHTS)}; got {weights!r}"
            )
        self.weights, self.std = weights, std
        # In a tuple: it belongs to the model, and is no child of this module.
        self._source: tuple[Adapter, ...] = ()
        parts = parts_built()
        if weights == "duration" and parts is not None:
            ours = [part for part in parts if isinstance(part, Adapter)]
            if not ours:
                raise ValueError(
                    "weights: duration needs a frontend, preencoder or encoder named "
                    "ofa, which knows the durations; set weights: equal without one"
                )
            self.attach(ours[0])

    def attach(self, adapter: Adapter) -> None:
        """Take durations from ``adapter``; found by itself in ESPnet's build_model."""
        self._source = (adapter,)

    def forward(self, units: Tensor, lengths: Tensor | None) -> Tensor:
        """Pool.

        Args:
            units: (B, U, D).
            lengths: (B,) units that are not padding; None: there is no padding.

        Returns:
            (B, D), or (B, 2 D) with ``std``.

        Raises:
            ValueError: something between the adapter and here changed the units.
        """
        size, count = units.shape[:2]
        if self.weights == "equal":
            if lengths is None:
                return pool(units, units.new_ones(size, count), self.std)
            mask = valid_mask(lengths.to(units.device), count)
            return pool(units, mask.float(), self.std)
        if not self._source:
            raise RuntimeError(
                "weights: duration: built outside ESPnet's build_model; call "
                "attach(frontend) with the adapter that compresses"
            )
        if getattr(self, "_is_replica", False):  # whose source is the original's
            raise RuntimeError(
                "weights: duration does not work under torch's DataParallel: train on "
                "several GPUs with --multiprocessing_distributed true"
            )
        durations = self._source[0].take_durations()
        if durations.shape != (size, count):
            raise ValueError(
                f"weights: duration: {self._source[0].role}: ofa made "
                f"{tuple(durations.shape)} units, and {(size, count)} (batch, units) "
                "are to be pooled: the part between them subsamples or pads. Use one "
                "that does not (input_layer: linear), or weights: equal"
            )
        return pool(units, durations.to(units.device), self.std)


class OFADecoder(AbsDecoder):
    """``decoder: ofa`` of the classification task: pooling and a linear layer.

    ESPnet's ``decoder: linear`` with ``weights: duration`` as the default.

    Args:
        vocab_size: classes.
        encoder_output_size: width of the units.
        weights: ``duration | equal``, see :class:`UnitPooling`.
        std: pool the standard deviation too.
        dropout: of the pooled vector.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        weights: str = "duration",
        std: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pooling = UnitPooling(weights, std)
        self.dropout = nn.Dropout(dropout)
        width = encoder_output_size * (2 if std else 1)
        self.linear_out = nn.Linear(width, vocab_size)

    def forward(self, hs_pad: Tensor, hlens: Tensor) -> Tensor:  # type: ignore[override]
        """(B, U, D) units and their (B,) lengths to (B, vocab_size) logits."""
        return self.linear_out(self.dropout(self.pooling(hs_pad, hlens)))

    def score(self, ys: Any, state: Any, x: Tensor) -> tuple[Tensor, None]:
        """Logits of one utterance, (U, D) to (vocab_size,), as ESPnet asks for them."""
        lengths = torch.tensor([len(x)], device=x.device)
        return self.forward(x[None], lengths)[0], None

    def output_size(self) -> int:
        """Classes."""
        return self.linear_out.out_features


class OFAPooling(AbsPooling):
    """``pooling: ofa`` of the speaker and language identification tasks.

    ESPnet's ``pooling: mean`` (``stats`` with ``std``) by duration.

    Args:
        input_size: width of the units.
        weights: ``duration | equal``, see :class:`UnitPooling`.
        std: pool the standard deviation too.
    """

    def __init__(
        self, input_size: int, weights: str = "duration", std: bool = False
    ) -> None:
        super().__init__()
        self.pooling = UnitPooling(weights, std)
        self._output_size = input_size * (2 if std else 1)

    def output_size(self) -> int:
        """Width of the pooled vector."""
        return self._output_size

    def forward(  # type: ignore[override]
        self, x: Tensor, feat_lengths: Tensor | None = None
    ) -> Tensor:
        """(B, D, U) units and their (B,) lengths to (B, D) or (B, 2 D)."""
        return self.pooling(x.transpose(1, 2), feat_lengths)
