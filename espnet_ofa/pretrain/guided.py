"""What all pre-training models share: an upstream, and losses that guide its alpha."""

from __future__ import annotations

from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor, nn

from espnet_ofa.subsampling.compressor import CompressorOutput
from espnet_ofa.subsampling.guidance import (
    cardinality_loss,
    frame_loss,
    pseudo_alpha_from_boundaries,
    segment_loss,
)
from espnet_ofa.upstream.model import OFAUpstream


class GuidedModel(AbsESPnetModel):
    """SSL model around an upstream whose rate is guided.

    Args:
        upstream: the encoder to train.
        cardinality_weight: weight of the rate loss on raw alpha. It acts only on
            batches without segments, whose own rate is the target where there are any.
        segment_weight: weight of the segment loss (ICASSP 2023 release: 0.05).
        frame_weight: weight of the frame loss (ICASSP 2023 release: 0.5).
        feature_grad_mult: factor on the gradient that the extractor gets (wav2vec 2.0,
            HuBERT and DistilHuBERT: 0.1), beside which it learns at the rate of all.
    """

    def __init__(
        self,
        upstream: OFAUpstream,
        cardinality_weight: float = 1.0,
        segment_weight: float = 0.05,
        frame_weight: float = 0.5,
        feature_grad_mult: float = 1.0,
    ) -> None:
        super().__init__()
        self.upstream = upstream
        self.upstream.compressor.anchored = False  # guidance sets the rate
        if feature_grad_mult != 1.0:
            _scale_gradient(upstream.extractor, feature_grad_mult)
        self.cardinality_weight = cardinality_weight
        self.segment_weight = segment_weight
        self.frame_weight = frame_weight

    def guidance(
        self,
        out: CompressorOutput,
        n_frames: Tensor,
        boundaries: Tensor | None,
        counts: Tensor | None,
        stats: dict[str, Tensor | None],
    ) -> Tensor:
        """Losses on raw alpha; writes into ``stats``.

        Args:
            out: of the compressor.
            n_frames: (B,) frames.
            boundaries: (B, K) first frame after each segment, or None.
            counts: (B,) segments, or None.
            stats: gets the losses and the mean of alpha.
        """
        alpha = out.alpha
        if alpha is None:
            return out.units.new_zeros(())
        stats["mean_alpha"] = (alpha.sum() / n_frames.sum()).detach()
        if boundaries is None or counts is None:
            target = self.upstream.config.target_rate
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


def _scale_gradient(extractor: nn.Module, factor: float) -> None:
    """Scale what comes back to an extractor from its frames."""

    def scale(module: nn.Module, args: tuple, output: tuple[Tensor, Tensor]) -> None:
        frames, _ = output
        if frames.requires_grad:
            frames.register_hook(lambda gradient: factor * gradient)

    extractor.register_forward_hook(scale)
