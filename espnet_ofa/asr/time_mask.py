"""Masks of time in front of a compressor: SpecAugment's, in milliseconds of audio."""

from __future__ import annotations

import torch
from torch import Tensor

from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.subsampling.rate import FRAME_MS


class TimeMask:
    """Blanks random spans of each utterance (Park et al., "SpecAugment", 2019).

    ESPnet's own masks follow the frontend, where their widths would count units.

    Args:
        num: spans in each utterance.
        max_ms: length of the longest in ms; lengths are uniform up to it.

    Raises:
        ValueError: out of range.
    """

    def __init__(self, num: int, max_ms: float) -> None:
        if num < 1 or max_ms <= 0:
            raise ValueError(
                "time_mask must be {num: spans, max_ms: longest span}, both above 0; "
                f"got {num} and {max_ms}"
            )
        self.num, self.max_ms = num, max_ms

    @classmethod
    def parse(cls, conf: dict | None) -> TimeMask | None:
        """From a config; None for none.

        Raises:
            ValueError: other keys than ``num`` and ``max_ms``.
        """
        if conf is None:
            return None
        if set(conf) != {"num", "max_ms"}:
            raise ValueError(
                f"time_mask must be {{num: spans, max_ms: longest span}}; got {conf}"
            )
        return cls(**conf)

    def __call__(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Frames with spans of zeros (their mean, behind a layer norm).

        Args:
            frames: (B, S, D) of 20 ms.
            lengths: (B,) frames that are not padding.
        """
        shape = (len(frames), self.num, 1)
        width = torch.rand(shape, device=frames.device) * (self.max_ms / FRAME_MS)
        room = (lengths[:, None, None] - width).clamp(min=0)
        start = torch.rand(shape, device=frames.device) * room
        middle = torch.arange(frames.shape[1], device=frames.device) + 0.5
        masked = ((middle >= start) & (middle < start + width)).any(1)  # (B, S)
        # An utterance shorter than its mask keeps its frames.
        masked &= ((~masked) & valid_mask(lengths, frames.shape[1])).any(1)[:, None]
        return frames.masked_fill(masked[..., None], 0.0)
