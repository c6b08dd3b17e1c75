"""How well boundaries agree with true ones: precision, recall, F1 and R-value.

What is found and what is true are paired one to one, at most a tolerance apart (20 ms
is usual for phones). An utterance's start and end are nobody's merit and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from espnet_ofa.report.tables import markdown_table

TOLERANCE_MS = 20.0
_ROUNDING = 1e-6  # seconds: exactly the tolerance apart is a hit


@dataclass
class BoundaryScore:
    """Counts that add up over utterances.

    Attributes:
        hits: pairs.
        found: boundaries to be judged.
        true: boundaries that there are.
        seconds: audio.
        segments: between and around the found boundaries.
    """

    hits: int = 0
    found: int = 0
    true: int = 0
    seconds: float = 0.0
    segments: int = 0

    def add(
        self, found: np.ndarray, true: np.ndarray, tolerance_ms: float = TOLERANCE_MS
    ) -> None:
        """Count one utterance.

        Args:
            found: ends of its segments in seconds, increasing; the last is its own.
            true: the same of its true segments.
            tolerance_ms: of a hit.
        """
        self.hits += count_hits(found[:-1], true[:-1], tolerance_ms / 1000)
        self.found += len(found) - 1
        self.true += len(true) - 1
        self.seconds += float(true[-1])
        self.segments += len(found)

    @property
    def segment_ms(self) -> float:
        """Mean length of a segment."""
        return 1000 * self.seconds / self.segments

    @property
    def precision(self) -> float:
        """Share of the found boundaries that are true."""
        return self.hits / self.found if self.found else float("nan")

    @property
    def recall(self) -> float:
        """Share of the true boundaries that are found."""
        return self.hits / self.true if self.true else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.found + self.true
        return 2 * self.hits / total if total else float("nan")

    @property
    def r_value(self) -> float:
        """Nearness to all hits and no boundary too many, 1 at best.

        Unlike F1 it does not reward recall that comes from sheer number (Räsänen,
        Laine and Altosaar, Interspeech 2009).
        """
        if not self.true:
            return float("nan")
        missed, surplus = 1 - self.recall, self.found / self.true - 1
        ideal = np.hypot(missed, surplus)
        line = abs(missed + surplus) / np.sqrt(2)
        return float(1 - (ideal + line) / 2)


def count_hits(found: np.ndarray, true: np.ndarray, tolerance: float) -> int:
    """Largest number of one-to-one pairs at most ``tolerance`` seconds apart."""
    hits = i = j = 0
    while i < len(found) and j < len(true):
        if abs(found[i] - true[j]) <= tolerance + _ROUNDING:
            hits, i, j = hits + 1, i + 1, j + 1
        elif found[i] < true[j]:
            i += 1
        else:
            j += 1
    return hits


def evenly_spaced(ends: np.ndarray) -> np.ndarray:
    """As many segments in the same time, all of one length: what knows nothing."""
    return ends[-1] * np.arange(1, len(ends) + 1) / len(ends)


def boundary_table(
    scores: Sequence[tuple[str, BoundaryScore, BoundaryScore]],
) -> str:
    """Markdown; one row of (name, its score, that of evenly spaced boundaries)."""
    header = ["boundaries", "segment (ms)", "precision", "recall", "F1", "R-value"]
    header += ["F1 evenly spaced", "R-value evenly spaced"]
    rows = []
    for name, score, even in scores:
        values = (score.precision, score.recall, score.f1, score.r_value)
        values += (even.f1, even.r_value)
        rows.append(
            [name, f"{score.segment_ms:.1f}"]
            + [f"{100 * value:.1f}" for value in values]
        )
    return markdown_table(header, rows)
