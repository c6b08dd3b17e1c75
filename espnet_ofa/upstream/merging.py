"""Adjacent-token merging: neighbours with similar keys become one unit.

After the attention of chosen layers, units whose keys resemble those of their neighbour
are averaged with it (A-ToMe: Li et al., "Accelerating Transducers through Adjacent
Token Merging", Interspeech 2023). Runs of any number of units can merge at once. The
average is weighted by duration, and durations add up.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.subsampling.lengths import valid_mask


class Merge(NamedTuple):
    """Which units became one.

    Attributes:
        index: (B, U) new place of each old unit.
        share: (B, U) weight of each old unit in the new one, zero on padding.
        lengths: (B,) new lengths.
        durations: (B, N) new durations.
    """

    index: Tensor
    share: Tensor
    lengths: Tensor
    durations: Tensor

    def average(self, x: Tensor) -> Tensor:
        """(B, U, D) old units -> (B, N, D) new ones, summed in fp32 or better."""
        weighted = x * self.share[..., None]
        y = weighted.new_zeros(len(x), self.durations.shape[1], x.shape[2])
        index = self.index[..., None].expand_as(x)
        return y.scatter_add(1, index, weighted).to(x.dtype)


class AdjacentMerging(nn.Module):
    """Decides which neighbours merge, for each utterance by itself.

    Args:
        ratio: share of the units to merge away, in (0, 1): the most similar ones. How
            many are left follows from how many there were, so nothing waits for the
            device.
        threshold: or, merge wherever the cosine similarity exceeds this.

    Raises:
        ValueError: neither or both, or out of range.
    """

    def __init__(
        self, ratio: float | None = None, threshold: float | None = None
    ) -> None:
        super().__init__()
        if (ratio is None) == (threshold is None):
            raise ValueError("merge needs one of ratio and threshold")
        if ratio is not None and not 0 < ratio < 1:
            raise ValueError(f"merge ratio must lie in (0, 1); got {ratio}")
        if threshold is not None and not -1 <= threshold < 1:
            raise ValueError(f"merge threshold must lie in [-1, 1); got {threshold}")
        self.ratio = ratio
        self.threshold = threshold

    def forward(
        self, keys: Tensor, lengths: Tensor, durations: Tensor, trim: bool = True
    ) -> Merge:
        """Plan a merge.

        Args:
            keys: (B, U, D), those of all heads side by side.
            lengths: (B,) units that are not padding.
            durations: (B, U).
            trim: with a threshold, read the new lengths on the host to cut padding off.
        """
        size = keys.shape[1]
        keys = keys.detach().float()
        similar = F.cosine_similarity(keys[:, :-1], keys[:, 1:], dim=-1)  # (B, U - 1)
        inside = valid_mask(lengths - 1, size - 1)  # both neighbours are
        if self.ratio is not None:
            similar = similar.masked_fill(~inside, -math.inf)
            order = similar.argsort(dim=1, descending=True, stable=True)
            gone = (lengths.double() * self.ratio).floor().long()
            gone = torch.minimum(gone, (lengths - 1).clamp(min=0))
            merges = order.argsort(dim=1) < gone[:, None]
            # The longest possible row sets the size: it is never shorter than another.
            new_size = size - min(math.floor(size * self.ratio), size - 1)
        else:
            assert self.threshold is not None
            merges = (similar > self.threshold) & inside
            gone = merges.sum(1)
            new_size = int((lengths - gone).max()) if trim else size
        begins = F.pad(~merges, (1, 0), value=True)  # (B, U)
        index = (begins.cumsum(1) - 1).clamp(max=new_size - 1)
        inside = valid_mask(lengths, size)
        # Even a unit of no duration has some weight, so that nothing divides by zero.
        weight = durations.float().clamp(min=1e-4) * inside
        mass = weight.new_zeros(len(keys), new_size).scatter_add(1, index, weight)
        share = weight / mass.gather(1, index).clamp(min=1e-4)
        merged = durations.new_zeros(mass.shape).scatter_add(
            1, index, durations * inside
        )
        return Merge(index, share, lengths - gone, merged)
