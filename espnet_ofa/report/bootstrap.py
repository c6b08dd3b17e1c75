"""Whether a difference of error rates is more than chance: a paired bootstrap.

Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
evaluation" (ICASSP 2004): test sets are drawn from the utterances of the test set, with
replacement, and both systems are scored on each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 10000
LEVEL = 0.95
_AT_ONCE = 500  # draws; bounds the memory


def difference_interval(
    differences: Sequence[float],
    lengths: Sequence[int],
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the difference of two error rates on the same utterances.

    Args:
        differences: errors of one system less those of the other, by utterance.
        lengths: tokens of the references; some are not zero.
        draws: test sets to draw.
        level: share of them inside the interval.
        seed: of the draws.

    Returns:
        Lower and upper bound in percent.

    Raises:
        ValueError: nothing to draw from, or the two are of different utterances.
    """
    if len(differences) != len(lengths) or not any(lengths):
        raise ValueError(
            f"expected a difference for each utterance, found {len(differences)} for "
            f"{len(lengths)} of {sum(lengths)} tokens"
        )
    rng = np.random.default_rng(seed)
    values = np.stack([np.asarray(differences, float), np.asarray(lengths, float)], 1)
    even = np.full(len(values), 1.0 / len(values))
    rates = []
    for first in range(0, draws, _AT_ONCE):
        times = rng.multinomial(len(values), even, size=min(_AT_ONCE, draws - first))
        errors, tokens = (times @ values).T
        rates.append(100.0 * errors / np.maximum(tokens, 1.0))
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(np.concatenate(rates), [tail, 100.0 - tail])
    return float(low), float(high)
