"""Masked prediction over compressed units, as an ESPnet model.

HuBERT's objective (Hsu et al., 2021, section II) on an encoder that sees units: units
are masked after CIF, hidden states are expanded back to frames by their durations, and
each frame predicts its k-means code.
"""

from __future__ import annotations

from typing import Any

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.cif import expand
from espnet_ofa.pretrain.masked import (
    draw_frame_mask,
    frames_inside,
    majority_hits,
    unit_mask_from_frames,
)
from espnet_ofa.subsampling.compressor import CompressorOutput
from espnet_ofa.subsampling.guidance import (
    cardinality_loss,
    frame_loss,
    pseudo_alpha_from_boundaries,
    segment_loss,
)
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.subsampling.rate import DEFAULT_MEAN_ALPHA, FRAME_MS
from espnet_ofa.upstream.model import OFAUpstream


class MaskedPredictionModel(AbsESPnetModel):
    """SSL model: an upstream, a mask and a head over codes.

    Args:
        upstream: the encoder to train.
        num_codes: number of k-means codes.
        mask_span_ms: length of one masked span in ms.
        mask_share: expected share of masked frames.
        clear_weight: weight of the loss on frames in clear units (HuBERT: 0).
        cardinality_weight: weight of the rate loss on raw alpha. It acts only on
            batches without segments, whose own rate is the target where there are any.
        segment_weight: weight of the segment loss (ICASSP 2023 release: 0.05).
        frame_weight: weight of the frame loss (ICASSP 2023 release: 0.5).
    """

    def __init__(
        self,
        upstream: OFAUpstream,
        num_codes: int,
        mask_span_ms: float = 200.0,
        mask_share: float = 0.5,
        clear_weight: float = 0.0,
        cardinality_weight: float = 1.0,
        segment_weight: float = 0.05,
        frame_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.upstream = upstream
        self.upstream.compressor.anchored = False  # guidance below sets the rate
        width = upstream.norm.normalized_shape[0]
        self.mask_embedding = nn.Parameter(torch.empty(width).uniform_())
        self.head = nn.Linear(upstream.output_size(), num_codes)
        self.num_codes = num_codes
        self.mask_span_ms = mask_span_ms
        self.mask_share = mask_share
        self.clear_weight = clear_weight
        self.cardinality_weight = cardinality_weight
        self.segment_weight = segment_weight
        self.frame_weight = frame_weight

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
        # Alpha sees clear frames: segments must not differ between training and use.
        out = self.upstream.compress(frames, n_frames)
        size = frames.shape[1]
        frame_mask = draw_frame_mask(n_frames, size, self.mask_span_ms, self.mask_share)
        unit_mask = unit_mask_from_frames(frame_mask, out.durations, out.lengths)
        units = torch.where(
            unit_mask[..., None], self.mask_embedding.to(out.units.dtype), out.units
        )
        hidden = self.upstream.encode(units, out.lengths)[-1]
        # The head is linear and a frame is a blend of units: expanding logits equals
        # expanding hidden states, for fewer operations.
        logits = expand(self.head(hidden), out.durations, size)  # (B, S, codes)

        valid = valid_mask(n_frames, size)
        masked = frames_inside(unit_mask, out.durations, size) & valid
        clear = frames_inside(~unit_mask, out.durations, size) & valid
        nll = F.cross_entropy(
            logits.transpose(1, 2).float(),
            targets[:, :size].clamp(min=0).long(),
            reduction="none",
        )  # (B, S)
        loss_masked = (nll * masked).sum() / masked.sum().clamp(min=1)
        loss_clear = (nll * clear).sum() / clear.sum().clamp(min=1)
        loss = loss_masked + self.clear_weight * loss_clear

        with torch.no_grad():
            hit = logits.argmax(-1) == targets[:, :size]
            stats: dict[str, Tensor | None] = {
                "loss_masked": loss_masked.detach(),
                "loss_clear": loss_clear.detach(),
                "acc_masked": (hit & masked).sum() / masked.sum().clamp(min=1),
                "acc_clear": (hit & clear).sum() / clear.sum().clamp(min=1),
                "period_ms": FRAME_MS * n_frames.sum() / out.lengths.sum(),
            }
            if not self.training:
                hits = majority_hits(
                    targets[:, :size], masked, out.durations, self.num_codes
                )
                stats["acc_ceiling"] = hits / masked.sum().clamp(min=1)
        guidance = self._guidance(out, n_frames, boundaries, boundaries_lengths, stats)
        loss = loss + guidance
        stats["loss"] = loss.detach()
        gathered: Any = force_gatherable((loss, stats, speech.shape[0]), loss.device)
        return gathered

    def _guidance(
        self,
        out: CompressorOutput,
        n_frames: Tensor,
        boundaries: Tensor | None,
        counts: Tensor | None,
        stats: dict[str, Tensor | None],
    ) -> Tensor:
        """Losses on raw alpha; writes into ``stats``."""
        alpha = out.alpha
        if alpha is None:
            return out.units.new_zeros(())
        stats["mean_alpha"] = (alpha.sum() / n_frames.sum()).detach()
        if boundaries is None or counts is None:
            conf = self.upstream.config.compressor_conf
            target = conf.get("target_rate", DEFAULT_MEAN_ALPHA)
            loss = cardinality_loss(alpha, n_frames, target)
            stats["loss_cardinality"] = loss.detach()
            return self.cardinality_weight * loss
        segment = segment_loss(alpha, boundaries, counts)
        pseudo = pseudo_alpha_from_boundaries(boundaries, counts, alpha.shape[1])
        frame = frame_loss(alpha, pseudo, n_frames)
        stats["loss_segment"], stats["loss_frame"] = segment.detach(), frame.detach()
        return self.segment_weight * segment + self.frame_weight * frame

    def collect_feats(
        self, speech: Tensor, speech_lengths: Tensor, **kwargs
    ) -> dict[str, Tensor]:
        """Lengths are all that stage 7 collects."""
        return {"feats": speech[..., None], "feats_lengths": speech_lengths}
