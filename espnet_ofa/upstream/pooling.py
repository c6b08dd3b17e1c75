"""Query and key-value pooling: attention at a coarser step than its units.

``Z = softmax(X_q W_q (X_kv W_k)^T / sqrt(d)) X_kv W_v`` with ``X_q`` and ``X_kv``
averages of every q and k units; each output is repeated q times and cropped, so units,
lengths and durations stay as they are and only attention gets cheaper (Vyas et al.,
"On-demand compute reduction with stochastic wav2vec 2.0", Interspeech 2022). One q and
one k hold for all layers, where they could differ from layer to layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.subsampling.fixed import mean_windows
from espnet_ofa.subsampling.lengths import subsampled_lengths
from espnet_ofa.upstream.attention import Padded


class Pooling(Padded):
    """A padded batch whose attention pools.

    Args:
        lengths: (B,) units; averages are over these only.
        size: U.
        query: units that share a query.
        key: units that are averaged into one key and value; a window is seen if any of
            its units is no padding.
    """

    def __init__(self, lengths: Tensor, size: int, query: int, key: int) -> None:
        super().__init__(subsampled_lengths(lengths, key), -(-size // key))
        self.lengths = lengths
        self.query = query
        self.key = key

    def project(self, qkv: nn.Module, x: Tensor) -> Sequence[Tensor]:
        """(B, U, D) -> query (B, ceil(U / q), D), key and value (B, ceil(U / k), D)."""
        sizes = [x.shape[-1], 2 * x.shape[-1]]
        query_weight, rest_weight = qkv.weight.split(sizes)  # type: ignore[operator]
        query_bias, rest_bias = qkv.bias.split(sizes)  # type: ignore[operator]
        query = F.linear(self._pool(x, self.query), query_weight, query_bias)
        rest = F.linear(self._pool(x, self.key), rest_weight, rest_bias)
        return [query, *rest.chunk(2, dim=-1)]

    def spread(self, x: Tensor, size: int) -> Tensor:
        """(B, ceil(U / q), D) -> (B, size, D)."""
        if self.query == 1:
            return x
        return x.repeat_interleave(self.query, dim=1)[:, :size]

    def _pool(self, x: Tensor, factor: int) -> Tensor:
        return x if factor == 1 else mean_windows(x, self.lengths, factor)
