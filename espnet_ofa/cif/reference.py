"""The definition of continuous integrate-and-fire (CIF), as a slow float64 loop.

Every other backend is tested against this file; none imports it, and it is never
changed to match one. Autograd through the loop defines the gradients.

Reference: Dong and Xu, "CIF: Continuous Integrate-and-Fire for End-to-End Speech
Recognition", arXiv:1905.11235, Algorithm 1, with the tail and tie rules stated in
:func:`espnet_ofa.cif.integrate_and_fire`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from espnet_ofa.cif.types import NO_MASS, TIE, CIFOutput


class _Piece(NamedTuple):
    """The part of one frame that lands in one unit."""

    frame: int
    mass: Tensor  # 0-d float64
    share: float  # of the frame's time, in [0, 1]


def integrate_and_fire(
    frames: Tensor,
    weights: Tensor,
    lengths: Tensor,
    threshold: float,
    tail_threshold: float,
    num_units: int | None = None,
) -> CIFOutput:
    """Integrate frames into units, one utterance, frame and unit at a time.

    Args:
        frames: (B, S, D).
        weights: (B, S), >= 0; rounded to fp32 unless they are float64.
        lengths: (B,) frames per utterance, all >= 1.
        threshold: mass of a unit.
        tail_threshold: smallest tail that becomes a unit, in units of ``threshold``.
        num_units: columns of the output; None takes the longest row.

    Returns:
        CIFOutput with float64 units and durations.
    """
    if weights.dtype != torch.float64:
        weights = weights.float()
    limit = num_units if num_units is not None else math.inf
    rows = []
    for b, length in enumerate(lengths.tolist()):
        x, w = frames[b, :length].double(), weights[b, :length].double()
        pieces, scaled, merged = _units_of_row(w, threshold, tail_threshold, limit)
        units = [_mix(unit, x, threshold, scale=False) for unit in pieces]
        if scaled:
            units[-1] = _mix(pieces[-1], x, threshold, scale=True)
        durations = [sum(piece.share for piece in unit) for unit in pieces]
        rows.append((torch.stack(units), x.new_tensor(durations), merged))

    columns = num_units or max(len(durations) for _, durations, _ in rows)
    pad = torch.nn.functional.pad
    return CIFOutput(
        torch.stack([pad(u, (0, 0, 0, columns - len(u))) for u, _, _ in rows]),
        torch.tensor([len(d) for _, d, _ in rows], device=frames.device),
        torch.stack([pad(d, (0, columns - len(d))) for _, d, _ in rows]),
        torch.tensor([m for _, _, m in rows], device=frames.device),
    )


def _units_of_row(
    weights: Tensor, threshold: float, tail_threshold: float, limit: float
) -> tuple[list[list[_Piece]], bool, bool]:
    """Cut the frames of one utterance into units.

    Returns:
        The pieces of every unit; whether the last unit must be scaled to ``threshold``;
        whether units were merged into it.
    """
    units: list[list[_Piece]] = [[]]
    mass = edge = weights.new_zeros(())
    for t, weight in enumerate(weights):
        fires = len(units) - 1
        mass = mass + weight
        fires_now = math.floor(mass.item() / threshold + TIE)
        # Snapping: a unit that fired within the tie tolerance is full. The value is
        # snapped, the gradient is that of the mass (straight through).
        shift = max(fires_now * threshold - mass.item(), 0.0)
        edge_now = mass + shift
        step = (edge_now - edge).item()
        for j in range(fires, fires_now + 1):
            low = edge if j == fires else j * threshold
            high = edge_now if j == fires_now else (j + 1) * threshold
            part = torch.as_tensor(high - low, dtype=torch.float64)
            # A frame of zero weight belongs to the unit open at that moment.
            share = part.item() / step if step > 0 else 1.0
            units[j].append(_Piece(t, part, share))
            if j < fires_now:
                units.append([])
        edge = edge_now

    full = len(units) - 1
    rest = edge.item() - full * threshold
    scaled = full == 0 or rest >= tail_threshold * threshold
    if not scaled:  # dropped: no mass, but its frames join the last unit's duration
        tail = units.pop()
        units[-1] += [p._replace(mass=torch.zeros_like(p.mass)) for p in tail]
    merged = len(units) > limit
    if merged:
        units[int(limit) - 1 :] = [sum(units[int(limit) - 1 :], [])]
    return units, scaled or merged, merged


def _mix(unit: list[_Piece], frames: Tensor, threshold: float, scale: bool) -> Tensor:
    """Weighted sum (D,) of the frames of one unit."""
    masses = torch.stack([piece.mass.to(frames.device) for piece in unit])
    if scale and masses.sum() < NO_MASS * threshold:
        masses = torch.full_like(masses, threshold / len(unit))
    elif scale:
        masses = masses * (threshold / masses.sum())
    return masses @ frames[[piece.frame for piece in unit]]
