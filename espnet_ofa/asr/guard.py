"""How many units an utterance's labels need, and the lambda that leaves them."""

from __future__ import annotations

import torch
from torch import Tensor

from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.subsampling.rate import Lam

_SLACK = 0.01  # units; fp32 rounding of the mass must not cost the last one


def needed_units(text: Tensor, text_lengths: Tensor) -> Tensor:
    """Units that CTC needs: every label, and a blank between two equal ones.

    Args:
        text: (B, N) label ids, any padding.
        text_lengths: (B,) labels.

    Returns:
        (B,) int64.
    """
    repeats = (text[:, 1:] == text[:, :-1]) & valid_mask(
        text_lengths - 1, max(text.shape[1] - 1, 0)
    )
    return text_lengths + repeats.sum(1)


def cap_lam(lam: Lam, alpha: Tensor, lengths: Tensor, needed: Tensor) -> Tensor:
    """Lower lambda where an utterance would get fewer units than it needs.

    The mass of an utterance of S frames and alpha mass A is ``S - lam (S - A)`` up to
    lambda 1 and ``(2 - lam) A`` beyond; the cap is where that equals ``needed``. An
    utterance with fewer frames than needed units keeps all its frames (lambda 0).

    Args:
        lam: number, 0-d, (1,) or (B,) tensor; its gradient survives where it is lower.
        alpha: (B, S) weights before lambda, zero on padding.
        lengths: (B,) frames.
        needed: (B,) mass wanted, in units.

    Returns:
        (B,) lambda.
    """
    frames = lengths.to(alpha.dtype)
    mass = alpha.detach().sum(1)
    wanted = needed.to(alpha.dtype) + _SLACK
    below_one = (frames - wanted) / (frames - mass).clamp(min=1e-6)
    beyond_one = 2.0 - wanted / mass.clamp(min=1e-6)
    cap = torch.where(mass >= wanted, beyond_one, below_one.clamp(0.0, 1.0))
    if isinstance(lam, Tensor):
        lam = lam.to(device=alpha.device, dtype=alpha.dtype)
        return torch.minimum(lam.expand_as(cap), cap)
    return cap.clamp(max=lam)  # a number is not worth a copy to the device
