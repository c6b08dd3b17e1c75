"""What the CIF operator returns, and the constants of its definition."""

from typing import NamedTuple

from torch import Tensor

#: A unit fires when its mass reaches ``threshold * (1 - TIE)``. Exact ties are common
#: (weight 1/n), and n times the rounded 1/n may fall just short of one.
TIE = 2.0**-20

#: An utterance lighter than ``threshold * NO_MASS`` has no direction to scale up.
NO_MASS = 1e-6


class CIFOutput(NamedTuple):
    """Units of a batch of utterances.

    Attributes:
        units: (B, U, D), dtype of the frames, zero beyond ``lengths``.
        lengths: (B,) int64, units per utterance.
        durations: (B, U) frames that each unit covers, zero beyond ``lengths``; a row
            sums to the frames of its utterance. Carries no gradient.
        merged: (B,) bool, True where ``num_units`` was too small and the units beyond
            it were merged into the last one.
    """

    units: Tensor
    lengths: Tensor
    durations: Tensor
    merged: Tensor
