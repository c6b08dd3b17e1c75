"""Self-attention, and which units it lets see which.

A *scope* knows how the units of a call lie in memory and what each of them may see. All
layers of a call share it; they know nothing of padding, packing, pooling or chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.cif.tracing import reads_for_free
from espnet_ofa.subsampling.chunks import Past
from espnet_ofa.subsampling.lengths import valid_mask

Embed = Callable[..., Tensor]  # (B, U, D), (B,) lengths, and a past or none


class Padded:
    """A padded batch, each of whose units sees all units of its utterance.

    Args:
        lengths: (B,) units that are not padding.
        size: U.
    """

    def __init__(self, lengths: Tensor, size: int) -> None:
        self.mask: Tensor | None = valid_mask(lengths, size)[:, None, None]

    def enter(self, embed: Embed, x: Tensor, lengths: Tensor) -> Tensor:
        """Embed (B, U, D), and lay them as the layers shall find them."""
        return embed(x, lengths)

    def leave(self, x: Tensor) -> Tensor:
        """As the layers left them, to (B, U, D)."""
        return x

    def project(self, qkv: nn.Module, x: Tensor) -> Sequence[Tensor]:
        """(B, U, D) -> queries (B, U, D), keys and values (B, K, D)."""
        return qkv(x).chunk(3, dim=-1)

    def attend(
        self, layer: SelfAttention, q: Tensor, k: Tensor, v: Tensor, dropout: float
    ) -> Tensor:
        """(B, H, U, d) queries, (B, H, K, d) keys and values -> (B, H, U, d)."""
        attend = F.scaled_dot_product_attention
        return attend(q, k, v, attn_mask=self.mask, dropout_p=dropout)

    def spread(self, x: Tensor, size: int) -> Tensor:
        """Outputs of the queries, to (B, size, D)."""
        return x


class Packed(Padded):
    """Utterances end to end in one row, so that padding costs nothing.

    Args:
        sizes: their lengths.
        size: U of the padded batch.
    """

    def __init__(self, sizes: list[int], size: int) -> None:
        self.sizes = sizes
        self.size = size

    def enter(self, embed: Embed, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, U, D) -> (1, sum of sizes, D)."""
        rows = [row[None, :n] for row, n in zip(x, self.sizes, strict=True) if n]
        counts = lengths[lengths > 0].split(1)
        return torch.cat([*map(embed, rows, counts)], 1)

    def leave(self, x: Tensor) -> Tensor:
        """(1, sum of sizes, D) -> (B, U, D), zero on padding."""
        out = x.new_zeros(len(self.sizes), self.size, x.shape[2])
        for b, part in enumerate(x[0].split(self.sizes)):
            out[b, : len(part)] = part
        return out

    def attend(
        self, layer: SelfAttention, q: Tensor, k: Tensor, v: Tensor, dropout: float
    ) -> Tensor:
        """One utterance after the other."""
        attend = F.scaled_dot_product_attention
        parts = zip(*(y.split(self.sizes, dim=2) for y in (q, k, v)), strict=True)
        return torch.cat([attend(*part, dropout_p=dropout) for part in parts], 2)


class Chunked(Padded):
    """A padded batch, cut into chunks.

    Args:
        chunks: (B, U) chunk of each unit; padding is in one of its own.
        left: chunks before its own that a unit sees.
    """

    def __init__(self, chunks: Tensor, left: int) -> None:
        ago = chunks[:, :, None] - chunks[:, None]  # (B, U, U)
        self.mask = ((ago >= 0) & (ago <= left))[:, None]


class Cached(Padded):
    """One chunk of a stream, which sees units before it.

    Args:
        past: of the stream.
        seen: units before the chunk that its own see.
    """

    mask = None

    def __init__(self, past: Past, seen: int) -> None:
        self.past = past
        self.seen = seen

    def enter(self, embed: Embed, x: Tensor, lengths: Tensor) -> Tensor:
        """Embed (1, U, D)."""
        return embed(x, lengths, self.past)

    def attend(
        self, layer: SelfAttention, q: Tensor, k: Tensor, v: Tensor, dropout: float
    ) -> Tensor:
        """Keys and values of the chunks before are remembered, by layer."""
        k = self.past.join((layer, "keys"), k, self.seen)
        v = self.past.join((layer, "values"), v, self.seen)
        return super().attend(layer, q, k, v, dropout)


def choose_scope(x: Tensor, lengths: Tensor, may_pack: bool) -> Padded:
    """Packed where that is cheaper and nothing forbids it, or padded.

    Packing is for inference on CPUs: there lengths are read for nothing, and attention
    to one utterance after the other is no slower.

    Args:
        x: (B, U, D).
        lengths: (B,).
        may_pack: whether units may lie in one row.
    """
    size = x.shape[1]
    if may_pack and reads_for_free(x):
        sizes = lengths.tolist()
        if 0 < sum(sizes) < x.shape[0] * size:
            return Packed(sizes, size)
    return Padded(lengths, size)


class SelfAttention(nn.Module):
    """Multi-head self-attention through scaled_dot_product_attention."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, scope: Padded) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: (B, U, D).
            scope: what each unit may see.

        Returns:
            (B, U, D) output and (B, K, D) keys.
        """
        query, key, value = scope.project(self.qkv, x)
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, U, D / H)
            for y in (query, key, value)
        )
        y = scope.attend(self, q, k, v, self.dropout if self.training else 0.0)
        out = self.out(y.transpose(1, 2).flatten(2))
        return scope.spread(out, x.shape[1]), key
