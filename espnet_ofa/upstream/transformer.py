"""The Transformer over units: its cost falls with their number."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from espnet_ofa.subsampling.lengths import valid_mask, zero_padding


class PositionalConv(nn.Module):
    """Convolutional position embedding (wav2vec 2.0, section 2), added to its input."""

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=(4.0 / (kernel * dim)) ** 0.5)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.conv = weight_norm(conv, dim=2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, U, D), (B,) -> (B, U, D)."""
        x = zero_padding(x, lengths)
        y = self.conv(x.transpose(1, 2))[..., : x.shape[1]]  # an even kernel adds one
        return x + F.gelu(y).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention through scaled_dot_product_attention."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} is not a multiple of heads {heads}")
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: (B, U, D); mask: (B, 1, 1, U) bool, True where a unit may be seen."""
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, U, D / H)
            for y in self.qkv(x).chunk(3, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out(y.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Attention and feed-forward with residuals, layer norm before or after."""

    def __init__(
        self,
        dim: int,
        heads: int,
        ff_dim: int,
        norm_first: bool,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = SelfAttention(dim, heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.ff_in = nn.Linear(dim, ff_dim)
        self.ff_out = nn.Linear(ff_dim, dim)
        self.ff_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.activation_dropout = nn.Dropout(activation_dropout)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.ff_out(self.activation_dropout(F.gelu(self.ff_in(x))))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, U, D) -> (B, U, D)."""
        if self.norm_first:
            x = x + self.dropout(self.attention(self.attention_norm(x), mask))
            return x + self.dropout(self._feed_forward(self.ff_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        return self.ff_norm(x + self.dropout(self._feed_forward(x)))


class Transformer(nn.Module):
    """Positional convolution and a stack of layers.

    Args:
        dim: width.
        layers: number of layers.
        heads: attention heads.
        ff_dim: width of the feed-forward layers.
        pos_kernel: kernel of the positional convolution in units.
        pos_groups: its groups.
        norm_first: layer norm before each block, and once at the end.
        dropout: dropout of the embedding and of residual branches.
        attention_dropout: dropout of attention weights.
        activation_dropout: dropout inside the feed-forward layers.
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        heads: int,
        ff_dim: int,
        pos_kernel: int = 128,
        pos_groups: int = 16,
        norm_first: bool = False,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        activation_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.position = PositionalConv(dim, pos_kernel, pos_groups)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(
                dim,
                heads,
                ff_dim,
                norm_first,
                dropout,
                attention_dropout,
                activation_dropout,
            )
            for _ in range(layers)
        )

    def forward(
        self, x: Tensor, lengths: Tensor, num_layers: int | None = None
    ) -> list[Tensor]:
        """Hidden states of every depth.

        Args:
            x: (B, U, D) units.
            lengths: (B,) units that are not padding.
            num_layers: run only so many layers; all by default.

        Returns:
            ``num_layers + 1`` tensors of shape (B, U, D): the input of the first layer
            and the output of each. With ``norm_first`` the output of the topmost layer
            is normalised.
        """
        x = self.position(x, lengths)
        if not self.norm_first:
            x = self.norm(x)
        x = self.dropout(x)
        mask = valid_mask(lengths, x.shape[1])[:, None, None]
        states = [x]
        for layer in self.layers[:num_layers]:
            states.append(layer(states[-1], mask))
        if self.norm_first and len(states) == len(self.layers) + 1:
            states[-1] = self.norm(states[-1])
        return states
