"""What the Transformer is told of the rate it runs at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from espnet_ofa.subsampling.rate import Lam

KINDS = ("durations", "lam")
_HIDDEN = 32
_SHORTEST = 0.1  # frames; of padding, whose duration is zero


class RateCondition(nn.Module):
    """Scales and shifts units by how long each is, by lambda, or by both (FiLM).

    ``x (1 + scale) + shift``, from a small network over log duration and lambda. The
    average of more frames varies less, and neighbours lie further apart: a scale and a
    shift say both. Its last layer starts at zero: a model that has just got a condition
    computes what it did without. Lambda gets no gradient through it: what lambda is
    learned for is the units, not a bias.

    Args:
        dim: width of the units.
        kinds: ``durations``, ``lam`` or both.

    Raises:
        ValueError: neither, or something else.

    Reference: Perez et al., "FiLM: Visual reasoning with a general conditioning layer",
    AAAI 2018.
    """

    def __init__(self, dim: int, kinds: Sequence[str]) -> None:
        super().__init__()
        if isinstance(kinds, str) or not kinds or not set(kinds) <= set(KINDS):
            raise ValueError(
                f"condition must be a list of {' and '.join(KINDS)}; got {kinds!r}"
            )
        self.kinds = [kind for kind in KINDS if kind in kinds]
        self.hidden = nn.Linear(len(self.kinds), _HIDDEN)
        self.out = nn.Linear(_HIDDEN, 2 * dim)
        self.espnet_initialization_fn()

    def espnet_initialization_fn(self) -> None:
        """Start again, also after ESPnet's ``init:``: without an effect."""
        self.hidden.reset_parameters()
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, units: Tensor, durations: Tensor, lam: Lam | None) -> Tensor:
        """(B, U, D) units, of any duration on padding -> (B, U, D).

        Args:
            units: (B, U, D).
            durations: (B, U) frames that each covers.
            lam: number, 0-d, (1,) or (B,) tensor.
        """
        log_durations = durations.float().clamp(min=_SHORTEST).log()
        features = [log_durations] if "durations" in self.kinds else []
        if "lam" in self.kinds:
            features.append(_spread(lam, log_durations))
        known = torch.stack(features, -1).to(self.hidden.weight.dtype)
        hidden = nn.functional.gelu(self.hidden(known))
        scale, shift = self.out(hidden).to(units.dtype).chunk(2, dim=-1)
        return units * (1.0 + scale) + shift


def _spread(lam: Lam | None, like: Tensor) -> Tensor:
    """Lambda of each unit, (B, U)."""
    assert lam is not None  # nothing compresses by lambda: refused when built
    if not isinstance(lam, Tensor):
        return torch.full_like(like, lam)  # no copy to the device
    lam = lam.detach().to(like)
    return (lam[:, None] if lam.dim() else lam).expand_as(like)
