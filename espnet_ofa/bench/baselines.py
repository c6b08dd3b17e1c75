"""CIF as others compute it: readable versions of the published algorithms.

Each takes frames (B, S, D) and weights (B, S) in [0, 1] and returns padded units
(B, U, D) of threshold 1. Those written here drop what is left at the end of an
utterance, as the published ones do in training; ``torch_cif`` keeps half a unit.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

CIF = Callable[[Tensor, Tensor], Tensor]


def loop_cif(frames: Tensor, weights: Tensor) -> Tensor:
    """One step per frame: Dong and Xu, arXiv:1905.11235, Algorithm 1.

    FunASR's paraformer (Gao et al., arXiv:2206.08317) ran this for long.
    """
    mass = weights.new_zeros(len(weights))
    unit = frames.new_zeros(frames[:, 0].shape)
    seen, fired = [], []
    for t in range(frames.shape[1]):
        mass = mass + weights[:, t]
        fires = mass >= 1.0
        rest = torch.where(fires, mass - 1.0, 0.0)  # what opens the next unit
        unit = unit + (weights[:, t] - rest)[:, None] * frames[:, t]
        seen.append(unit)
        fired.append(fires)
        unit = torch.where(fires[:, None], rest[:, None] * frames[:, t], unit)
        mass = torch.where(fires, rest, mass)
    units = zip(torch.stack(seen, 1), torch.stack(fired, 1), strict=True)
    return pad_sequence([row[fires] for row, fires in units], batch_first=True)


def cumsum_cif(frames: Tensor, weights: Tensor) -> Tensor:
    """A unit is the difference of two sums over all frames so far.

    The way of FunASR's later ``cif_v1``: no loop, but the running sums (B, S, D) are
    written and read again, and lose digits as they grow.
    """
    mass = weights.double().cumsum(1)
    count = mass.floor()
    before = torch.nn.functional.pad(count[:, :-1], (1, 0))
    fires = count > before
    rest = (mass - count).to(frames.dtype)
    sums = (weights[..., None] * frames).cumsum(1)
    ends = sums[fires] - rest[fires][:, None] * frames[fires]  # (units of all rows, D)
    rows = ends.split(fires.sum(1).tolist())
    starts = [torch.cat([row.new_zeros(1, row.shape[1]), row[:-1]]) for row in rows]
    units = [end - start for end, start in zip(rows, starts, strict=True)]
    return pad_sequence(units, batch_first=True)


def dense_cif(frames: Tensor, weights: Tensor) -> Tensor:
    """A product with the dense (B, U, S) matrix of overlaps; memory grows with U S."""
    end = weights.double().cumsum(1)[:, None]
    start = end - weights[:, None]
    most = int(end[:, 0, -1].max())
    low = torch.arange(most, device=weights.device)[:, None]
    whole = end[..., -1:] >= low + 1  # a unit that the utterance completes
    overlap = torch.minimum(end, low + 1) - torch.maximum(start, low)
    return torch.bmm((overlap.clamp(min=0) * whole).to(frames.dtype), frames)


def torch_cif(frames: Tensor, weights: Tensor) -> Tensor:
    """The pip package torch-cif."""
    from torch_cif import cif_function

    return cif_function(frames, weights, unbound_alpha=True)["cif_out"][0]


def find_baselines() -> tuple[dict[str, CIF], list[str]]:
    """What can run here by name, and a note for what cannot."""
    found: dict[str, CIF] = {
        "cumulative sum": cumsum_cif,
        "dense bmm": dense_cif,
        "loop": loop_cif,
    }
    if importlib.util.find_spec("torch_cif") is None:
        return found, ["torch-cif is left out: pip install torch-cif"]
    return {"torch-cif": torch_cif, **found}, []
