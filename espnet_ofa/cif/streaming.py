"""CIF chunk by chunk: the same units as offline, each given out once it is complete."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from espnet_ofa.cif.checks import check_options, check_shapes, check_values
from espnet_ofa.cif.eager import mix
from espnet_ofa.cif.plan import accumulate, cut
from espnet_ofa.cif.types import NO_MASS, CIFOutput


class StreamingCIF:
    """Carries the open unit of every row from one chunk to the next.

    All outputs of a row, concatenated, equal
    :func:`espnet_ofa.cif.integrate_and_fire` on the whole utterance; its durations are
    final only after :meth:`flush`. Inference only: nothing carries a gradient. One host
    wait per call.

    Args:
        threshold: mass of one unit.
        tail_threshold: smallest tail that becomes a unit, as a share of ``threshold``.
    """

    def __init__(self, threshold: float = 1.0, tail_threshold: float = 0.5) -> None:
        check_options(threshold, tail_threshold, None)
        self.threshold = threshold
        self.tail_threshold = tail_threshold
        self.reset()

    def reset(self) -> None:
        """Forget all rows; the next chunk starts new utterances."""
        self._state: _State | None = None

    @torch.no_grad()
    def push(self, frames: Tensor, weights: Tensor) -> CIFOutput:
        """Take the next chunk and give out the units it completes.

        Args:
            frames: (B, s, D); the rows of every chunk are the same utterances.
            weights: (B, s), >= 0.

        Returns:
            CIFOutput with the units completed in this chunk, possibly none (U = 0).

        Raises:
            ValueError: shapes that do not go with the chunks before; a weight that is
                negative, NaN or infinite.
        """
        check_shapes(frames, weights, None)
        state = self._state or _State.start(frames)
        if state.unit.shape != (frames.size(0), frames.size(2)):
            raise ValueError(
                f"chunk of shape {tuple(frames.shape)} follows chunks of "
                f"{state.unit.size(0)} rows and dim {state.unit.size(1)}; "
                "call reset() before other utterances"
            )
        with torch.autocast(frames.device.type, enabled=False):
            out, self._state = self._advance(state, frames.double(), weights)
        return out._replace(
            units=out.units.to(frames.dtype), durations=out.durations.float()
        )

    def _advance(
        self, state: "_State", frames: Tensor, weights: Tensor
    ) -> tuple[CIFOutput, "_State"]:
        rows, size, _ = frames.shape
        lengths = torch.full((rows,), size, device=frames.device)
        mass = accumulate(weights, lengths, self.threshold, carry=state.mass)
        before = mass.fires[:, :1]
        edge, fires = mass.edge - before * self.threshold, mass.fires - before
        here = mass._replace(edge=edge, fires=fires)
        fired = here.fires[:, -1:]
        most, bad = torch.stack([fired.amax(), mass.bad.any().double()]).tolist()
        if bad or math.isinf(most):
            check_values(weights, lengths)
        columns = int(most) + 1  # the last unit of each row stays open
        plan = cut(here, here.edge, fired, lengths, columns, self.threshold)
        units, durations = mix(frames, plan), plan.durations
        units[:, 0] += state.unit
        durations[:, 0] += state.duration

        count = fired[:, 0].long()
        row = torch.arange(rows, device=frames.device)
        done = torch.arange(columns - 1, device=frames.device) < count[:, None]
        out = CIFOutput(
            torch.where(done[..., None], units[:, :-1], 0.0),
            count,
            torch.where(done, durations[:, :-1], 0.0),
            torch.zeros_like(count, dtype=torch.bool),
        )
        return out, _State(
            mass=mass.plain[:, -1:],
            rest=mass.edge[:, -1] - mass.fires[:, -1] * self.threshold,
            fired=mass.fires[:, -1] > 0,
            unit=units[row, count],
            duration=durations[row, count],
            total=state.total + frames.sum(1),
            frames=state.frames + size,
            dtype=state.dtype,
        )

    @torch.no_grad()
    def flush(self) -> CIFOutput:
        """End all rows: give out their tails and forget them.

        Returns:
            CIFOutput with U = 1. Where ``lengths`` is 0 the tail was too light to be a
            unit: add ``durations[:, 0]`` to the duration of the row's last unit.

        Raises:
            ValueError: nothing was pushed.
        """
        if self._state is None:
            raise ValueError("flush() without a chunk: push() at least one frame first")
        state, threshold = self._state, self.threshold
        self.reset()
        kept = (state.rest >= self.tail_threshold * threshold) | ~state.fired
        massless = ~state.fired & (state.rest < NO_MASS * threshold)
        scale = threshold / torch.where(kept & ~massless, state.rest, threshold)
        unit = torch.where(
            massless[:, None],
            state.total * (threshold / state.frames),
            state.unit * scale[:, None],
        )
        return CIFOutput(
            torch.where(kept[:, None], unit, 0.0)[:, None].to(state.dtype),
            kept.long(),
            state.duration[:, None].float(),
            torch.zeros_like(kept),
        )


class _State(NamedTuple):
    """What the open unit of every row holds.

    Attributes:
        mass: (B, 1) float64, all mass so far, not snapped.
        rest: (B,) float64, mass of the open unit.
        fired: (B,) bool, some unit is complete.
        unit: (B, D) float64, weighted sum of its frames.
        duration: (B,) float64, frames it covers.
        total: (B, D) float64, sum of all frames.
        frames: frames so far.
        dtype: of the frames.
    """

    mass: Tensor
    rest: Tensor
    fired: Tensor
    unit: Tensor
    duration: Tensor
    total: Tensor
    frames: int
    dtype: torch.dtype

    @classmethod
    def start(cls, frames: Tensor) -> "_State":
        rows, _, dim = frames.shape
        zero = frames.new_zeros(rows, dtype=torch.float64)
        unit = frames.new_zeros(rows, dim, dtype=torch.float64)
        return cls(zero[:, None], zero, zero > 0, unit, zero, unit, 0, frames.dtype)
