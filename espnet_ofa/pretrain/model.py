"""Masked prediction over compressed units, as an ESPnet model.

HuBERT's objective (Hsu et al., 2021, section II) on an encoder that sees units: units
are masked after CIF, hidden states are expanded back to frames by their durations, and
each frame predicts its k-means code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.pretrain.guided import GuidedModel
from espnet_ofa.pretrain.masked import (
    draw_frame_mask,
    frames_inside,
    majority_hits,
    unit_mask_from_frames,
)
from espnet_ofa.subsampling.compressor import CompressorOutput
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.subsampling.rate import FRAME_MS, Lam
from espnet_ofa.subsampling.training import in_training_step
from espnet_ofa.upstream.model import OFAUpstream
from espnet_ofa.upstream.transformer import Encoded


class Prediction(NamedTuple):
    """What is said of a masked batch at one lambda.

    Attributes:
        out: of the compressor, unmasked.
        encoded: hidden states of the masked units.
        logits: (B, S, codes).
        masked: (B, S) bool, frames wholly inside masked units.
        clear: (B, S) bool, frames wholly inside clear ones.
    """

    out: CompressorOutput
    encoded: Encoded
    logits: Tensor
    masked: Tensor
    clear: Tensor


class MaskedPredictionModel(GuidedModel):
    """SSL model: an upstream, a mask and a head over codes.

    Args:
        upstream: the encoder to train.
        num_codes: number of k-means codes.
        mask_span_ms: length of one masked span in ms.
        mask_share: expected share of masked frames.
        clear_weight: weight of the loss on frames in clear units (HuBERT: 0).
        sandwich: train at lambda 0, at 1 and at the drawn one in each step (Yu and
            Huang, 2019): lambda 0 learns codes; the others learn, with this weight,
            what it says under the same mask. 0: the drawn one alone, on codes.
        cardinality_weight: see :class:`GuidedModel`.
        segment_weight: likewise.
        frame_weight: likewise.
        feature_grad_mult: likewise.
    """

    def __init__(
        self,
        upstream: OFAUpstream,
        num_codes: int,
        mask_span_ms: float = 200.0,
        mask_share: float = 0.5,
        clear_weight: float = 0.0,
        sandwich: float = 0.0,
        cardinality_weight: float = 1.0,
        segment_weight: float = 0.05,
        frame_weight: float = 0.5,
        feature_grad_mult: float = 1.0,
    ) -> None:
        super().__init__(
            upstream,
            cardinality_weight,
            segment_weight,
            frame_weight,
            feature_grad_mult,
        )
        if sandwich and not upstream.compressor.uses_lam:
            raise ValueError(
                "model_conf: sandwich needs compressor: cif; "
                f"{upstream.config.compressor} has no lambda"
            )
        width = upstream.norm.normalized_shape[0]
        self.mask_embedding = nn.Parameter(torch.empty(width).uniform_())
        self.head = nn.Linear(upstream.output_size(), num_codes)
        self.num_codes = num_codes
        self.mask_span_ms = mask_span_ms
        self.mask_share = mask_share
        self.clear_weight = clear_weight
        self.sandwich = sandwich

    def forward(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        targets: Tensor,
        targets_lengths: Tensor,
        boundaries: Tensor | None = None,
        boundaries_lengths: Tensor | None = None,
        **kwargs,
    ) -> tuple[Tensor, dict[str, Tensor | None], Tensor]:
        """One step.

        Args:
            speech: (B, L) samples at 16 kHz.
            speech_lengths: (B,) samples.
            targets: (B, S) k-means codes, one a frame; -1 on padding.
            targets_lengths: (B,) frames.
            boundaries: (B, K) first frame after each segment; -1 on padding.
            boundaries_lengths: (B,) segments.
            **kwargs: ``utt_id`` and the like, unused.

        Returns:
            Loss, statistics and batch size, as ESPnet's trainer wants them.
        """
        frames, n_frames = self.upstream.extract(speech, speech_lengths)
        size = frames.shape[1]
        frame_mask = draw_frame_mask(n_frames, size, self.mask_span_ms, self.mask_share)
        batch = frames, n_frames, frame_mask
        sandwich = self.sandwich if in_training_step(self) else 0.0
        first = self._predict(*batch, lam=0.0 if sandwich else None)
        out, encoded, logits, masked, clear = first
        nll = F.cross_entropy(
            logits.transpose(1, 2).float(),
            targets[:, :size].clamp(min=0).long(),
            reduction="none",
        )  # (B, S)
        loss_masked, loss_clear = _mean(nll, masked), _mean(nll, clear)
        loss = loss_masked + self.clear_weight * loss_clear

        with torch.no_grad():
            hit = logits.argmax(-1) == targets[:, :size]
            stats: dict[str, Tensor | None] = {
                "loss_masked": loss_masked.detach(),
                "loss_clear": loss_clear.detach(),
                "acc_masked": _mean(hit, masked),
                "acc_clear": _mean(hit, clear),
                "period_ms": FRAME_MS * n_frames.sum() / encoded.lengths.sum(),
            }
            if not self.training and self.upstream.upsampler is None:
                hits = majority_hits(
                    targets[:, :size], masked, encoded.durations, self.num_codes
                )
                stats["acc_ceiling"] = hits / masked.sum().clamp(min=1)
        if sandwich:
            others = [self._predict(*batch, lam=lam) for lam in (1.0, None)]
            pulls = torch.stack([self._pull(other, first) for other in others])
            loss = loss + sandwich * pulls.sum()
            stats["loss_pull"] = pulls.mean().detach()
        guidance = self.guidance(out, n_frames, boundaries, boundaries_lengths, stats)
        loss = loss + guidance
        stats["loss"] = loss.detach()
        gathered: Any = force_gatherable((loss, stats, speech.shape[0]), loss.device)
        return gathered

    def _predict(
        self, frames: Tensor, n_frames: Tensor, frame_mask: Tensor, lam: Lam | None
    ) -> Prediction:
        """Mask and predict, at a lambda or at the policy's."""
        # Alpha sees clear frames: segments must not differ between training and use.
        out = self.upstream.compress(frames, n_frames, lam)
        size = frames.shape[1]
        unit_mask = unit_mask_from_frames(frame_mask, out.durations, out.lengths)
        logits, encoded = self.upstream.predict_frames(
            self._mask(out, frames, n_frames, unit_mask), self.head, size
        )
        valid = valid_mask(n_frames, size)
        masked = frames_inside(unit_mask, out.durations, size) & valid
        clear = frames_inside(~unit_mask, out.durations, size) & valid
        return Prediction(out, encoded, logits, masked, clear)

    def _pull(self, student: Prediction, teacher: Prediction) -> Tensor:
        """Divergence of two lambdas' codes, where both mask frames or both see them."""
        divergence = F.kl_div(
            student.logits.float().log_softmax(-1),
            teacher.logits.detach().float().log_softmax(-1),
            reduction="none",
            log_target=True,
        ).sum(-1)  # (B, S)
        masked = _mean(divergence, student.masked & teacher.masked)
        clear = _mean(divergence, student.clear & teacher.clear)
        return masked + self.clear_weight * clear

    def _mask(
        self, out: CompressorOutput, frames: Tensor, n_frames: Tensor, unit_mask: Tensor
    ) -> CompressorOutput:
        """Replace the units of (B, U) ``unit_mask`` by the mask embedding."""
        token = self.mask_embedding.to(frames.dtype)
        if not self.upstream.compressor.positional:
            units = torch.where(unit_mask[..., None], token, out.units)
            return out._replace(units=units)
        # Masked behind a squeeze, a unit would have lost its position: so its frames
        # are masked, and squeezed again, as in SEW.
        inside = frames_inside(unit_mask, out.durations, frames.shape[1])
        masked = torch.where(inside[..., None], token, frames)
        return self.upstream.compress(masked, n_frames)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of (B, S) where ``counted``, 0-d."""
    return (values * counted).sum() / counted.sum().clamp(min=1)
