"""Query and key-value pooling: attention at a coarser step than its units.

``Z = softmax(X_q W_q (X_kv W_k)^T / sqrt(d)) X_kv W_v`` with ``X_q`` and ``X_kv``
averages of every q and k units; each output is repeated q times and cropped, so units,
lengths and durations stay as they are and only attention gets cheaper (Vyas et al.,
"On-demand compute reduction with stochastic wav2vec 2.0", Interspeech 2022).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.subsampling.fixed import mean_windows
from espnet_ofa.subsampling.lengths import subsampled_lengths, valid_mask


class Pooling(NamedTuple):
    """How one attention pools.

    Attributes:
        lengths: (B,) units; averages are over these only.
        query: units that share a query.
        key: units that are averaged into one key and value.
    """

    lengths: Tensor
    query: int = 1
    key: int = 1

    def mask(self, size: int) -> Tensor:
        """(B, 1, 1, ceil(size / key)), True where any unit of the window is valid."""
        windows = -(-size // self.key)
        lengths = subsampled_lengths(self.lengths, self.key)
        return valid_mask(lengths, windows)[:, None, None]

    def project(self, qkv: nn.Linear, x: Tensor) -> list[Tensor]:
        """(B, U, D) -> query (B, ceil(U / q), D), key and value (B, ceil(U / k), D)."""
        if self.query == self.key == 1:
            return list(qkv(x).chunk(3, dim=-1))
        sizes = [x.shape[-1], 2 * x.shape[-1]]
        query_weight, rest_weight = qkv.weight.split(sizes)
        query_bias, rest_bias = qkv.bias.split(sizes)
        query = F.linear(self._pool(x, self.query), query_weight, query_bias)
        rest = F.linear(self._pool(x, self.key), rest_weight, rest_bias)
        return [query, *rest.chunk(2, dim=-1)]

    def repeat(self, x: Tensor, size: int) -> Tensor:
        """(B, ceil(U / q), D) -> (B, size, D)."""
        if self.query == 1:
            return x
        return x.repeat_interleave(self.query, dim=1)[:, :size]

    def _pool(self, x: Tensor, factor: int) -> Tensor:
        return x if factor == 1 else mean_windows(x, self.lengths, factor)
