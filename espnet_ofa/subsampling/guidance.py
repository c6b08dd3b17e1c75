"""Losses that pull raw alpha to a rate or to segments.

All act on alpha *before* lambda, so that a random lambda cannot fight them, and all
average over true entries only: padding counts nowhere
(Meng et al., SLT 2022; Chen et al., ICASSP 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

from espnet_ofa.subsampling.lengths import valid_mask


def cardinality_loss(alpha: Tensor, lengths: Tensor, target_rate: float) -> Tensor:
    """Distance of the batch's mean alpha from the target rate.

    Args:
        alpha: (B, S) raw alpha, zero on padding.
        lengths: (B,) frames.
        target_rate: units per frame at lambda 1 (2/9: 90 ms).

    Returns:
        0-d loss, relative to the target: 1.0 means twice (or none of) its units.
    """
    mean = alpha.sum() / lengths.sum().clamp(min=1)
    return (mean - target_rate).abs() / target_rate


def segment_loss(alpha: Tensor, boundaries: Tensor, counts: Tensor) -> Tensor:
    """Alpha should add up to k where the k-th segment ends.

    Args:
        alpha: (B, S) raw alpha.
        boundaries: (B, K) first frame after each segment, increasing; any padding.
        counts: (B,) segments per utterance.

    Returns:
        0-d mean absolute error, in units, per segment.

    Raises:
        ValueError: shapes disagree.
    """
    if boundaries.dim() != 2 or boundaries.shape[0] != alpha.shape[0]:
        raise ValueError(
            f"boundaries must be (B, K) with B={alpha.shape[0]}; got "
            f"{tuple(boundaries.shape)}"
        )
    mask = valid_mask(counts, boundaries.shape[1])
    ends = (boundaries - 1).clamp(0, alpha.shape[1] - 1).long()
    mass = alpha.double().cumsum(1).gather(1, ends)  # (B, K)
    wanted = mask.double().cumsum(1)
    error = ((mass - wanted).abs() * mask).sum() / mask.sum().clamp(min=1)
    return error.to(alpha.dtype)


def frame_loss(alpha: Tensor, pseudo_alpha: Tensor, lengths: Tensor) -> Tensor:
    """Alpha should be 1/n on each frame of an n-frame segment.

    Args:
        alpha: (B, S) raw alpha.
        pseudo_alpha: (B, S) target, e.g. of :func:`pseudo_alpha_from_boundaries`.
        lengths: (B,) frames.
    """
    mask = valid_mask(lengths, alpha.shape[1])
    return ((alpha - pseudo_alpha).abs() * mask).sum() / mask.sum().clamp(min=1)


def pseudo_alpha_from_boundaries(
    boundaries: Tensor, counts: Tensor, num_frames: int
) -> Tensor:
    """1/n on every frame of an n-frame segment, zero after the last one.

    Args:
        boundaries: (B, K) first frame after each segment, increasing; any padding.
        counts: (B,) segments per utterance.
        num_frames: S.

    Returns:
        (B, S) float; each whole segment sums to one.
    """
    mask = valid_mask(counts, boundaries.shape[1])
    ends = boundaries.masked_fill(~mask, num_frames + 1).long().contiguous()  # (B, K)
    starts = ends.roll(1, dims=1)
    starts[:, 0] = 0
    lengths = (ends - starts).clamp(min=1).float()  # (B, K)
    frame = torch.arange(num_frames, device=ends.device).expand(ends.shape[0], -1)
    segment = torch.searchsorted(ends, frame.contiguous(), right=True)  # (B, S)
    inside = segment < counts[:, None]
    share = 1.0 / lengths.gather(1, segment.clamp(max=ends.shape[1] - 1))
    return share * inside
