"""The Transformer over units: its cost falls with their number."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.cif.tracing import needs_gradients
from espnet_ofa.subsampling.chunks import Past
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.subsampling.squeeze import PositionalConv
from espnet_ofa.upstream.attention import Padded, SelfAttention, choose_scope
from espnet_ofa.upstream.merging import AdjacentMerging, Merge


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

    def forward(
        self,
        x: Tensor,
        scope: Padded,
        merge: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """(B, U, D) -> (B, U, D).

        Args:
            x: (B, U, D).
            scope: what each unit may see.
            merge: makes fewer units of (B, U, D) units and (B, U, D) keys, between
                attention and feed-forward.
        """
        y = self.attention_norm(x) if self.norm_first else x
        y, keys = self.attention(y, scope)
        x = x + self.dropout(y)
        x = x if self.norm_first else self.attention_norm(x)
        if merge is not None:
            x = merge(x, keys)
        y = self.ff_norm(x) if self.norm_first else x
        y = self.ff_out(self.activation_dropout(F.gelu(self.ff_in(y))))
        x = x + self.dropout(y)
        return x if self.norm_first else self.ff_norm(x)


class Encoded(NamedTuple):
    """What a Transformer returns.

    Attributes:
        states: hidden states from the embedding upwards, (B, U, D) each; where layers
            merge, U shrinks on the way up.
        lengths: (B,) units of the topmost state.
        durations: (B, U) frames that each of them covers.
        merges: by number of the first state that it made shorter.
    """

    states: list[Tensor]
    lengths: Tensor
    durations: Tensor
    merges: dict[int, Merge]

    def aligned(self) -> list[Tensor]:
        """All states at the units of the topmost: lower ones averaged by duration."""
        states = list(self.states)
        for first, merge in self.merges.items():
            states[:first] = [merge.average(x) for x in states[:first]]
        return states


class Transformer(nn.Module):
    """Positional convolution and a stack of layers.

    Args:
        dim: width.
        layers: number of layers.
        heads: attention heads.
        ff_dim: width of the feed-forward layers.
        pos_kernel: kernel of the positional convolution in units; 0 for none, behind a
            squeeze, which has one.
        pos_groups: its groups.
        norm_first: layer norm before each block, and once at the end.
        dropout: dropout of the embedding and of residual branches.
        attention_dropout: dropout of attention weights.
        activation_dropout: dropout inside the feed-forward layers.
        merge: ``{layers: [...], ratio: ...}`` or ``{layers: [...], threshold: ...}``:
            layers (from 0) that merge adjacent units; see :class:`AdjacentMerging`.
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
        merge: dict | None = None,
    ) -> None:
        super().__init__()
        if dim % heads or (pos_kernel and dim % pos_groups):
            raise ValueError(
                f"dim must be a multiple of heads ({heads}) and, unless pos_kernel is "
                f"0, of pos_groups ({pos_groups}); got {dim}"
            )
        self.norm_first = norm_first
        self.position = (
            PositionalConv(dim, pos_kernel, pos_groups) if pos_kernel else None
        )
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(
                dim,
                heads,
                ff_dim,
                norm_first=norm_first,
                dropout=dropout,
                attention_dropout=attention_dropout,
                activation_dropout=activation_dropout,
            )
            for _ in range(layers)
        )

        self.set_merge(merge)

    def set_merge(self, merge: dict | None) -> None:
        """Choose what merges; see the class. Merging has no weights.

        Raises:
            ValueError: no such layers, or not one of ratio and threshold.
        """
        merge = dict(merge or {})
        self.merging_layers = sorted(set(merge.pop("layers", ())))
        self.merging = AdjacentMerging(**merge) if self.merging_layers else None
        if merge and self.merging is None:
            raise ValueError(f"merge: {merge} names no layers; add layers: [...]")
        if not set(self.merging_layers) <= set(range(len(self.layers))):
            raise ValueError(
                f"merge: layers must be among 0 to {len(self.layers) - 1}; got "
                f"{self.merging_layers}"
            )

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        durations: Tensor | None = None,
        num_layers: int | None = None,
        wait: bool = True,
        scope: Padded | None = None,
    ) -> Encoded:
        """Hidden states of every depth, each at its own units.

        The input of the first layer and the output of each: ``num_layers + 1``.

        Args:
            x: (B, U, D) units.
            lengths: (B,) units that are not padding.
            durations: (B, U) frames that each covers; one each by default.
            num_layers: run only so many layers; all by default. With ``norm_first`` the
                output of the topmost layer is normalised, that of others is not.
            wait: allow layers that merge by threshold to wait for the device, once in a
                call, after the last of them; data on a CPU, for which nobody waits,
                are cut after each.
            scope: what each unit may see; by default all of its utterance.
        """
        if durations is None:
            durations = valid_mask(lengths, x.shape[1]).float()
        if scope is None:
            may_pack = self.merging is None and not needs_gradients(x, self)
            scope = choose_scope(x, lengths, may_pack)
        elif self.merging is not None:
            raise ValueError("merge goes neither with query and key pooling nor chunks")
        states = [scope.enter(self._embed, x, lengths)]
        merges: dict[int, Merge] = {}
        layers = self.layers[:num_layers]
        merging = [i for i in self.merging_layers if i < len(layers)]

        def merge(x: Tensor, keys: Tensor) -> Tensor:
            nonlocal lengths, durations, scope
            assert self.merging is not None
            trim = wait and (x.device.type == "cpu" or len(states) - 1 == merging[-1])
            found = merges[len(states)] = self.merging(keys, lengths, durations, trim)
            lengths, durations = found.lengths, found.durations
            x = found.average(x)
            scope = Padded(lengths, x.shape[1])
            return x

        for i, layer in enumerate(layers):
            then = merge if i in merging else None
            states.append(layer(states[-1], scope, then))
        if self.norm_first and len(states) == len(self.layers) + 1:
            states[-1] = self.norm(states[-1])
        return Encoded([*map(scope.leave, states)], lengths, durations, merges)

    def _embed(self, x: Tensor, lengths: Tensor, past: Past | None = None) -> Tensor:
        """(B, U, D), (B,) -> (B, U, D): what the first layer sees."""
        if self.position is not None:
            x = self.position(x, lengths, past=past)
        return self.dropout(x if self.norm_first else self.norm(x))
