"""Segment boundaries of utterances, beside ``text`` in a data directory.

``boundaries`` holds one line per utterance: the id and the end of every segment in
seconds, increasing; the segments tile the audio, so the first one starts at 0 and the
last one ends with the audio. ``phones``, where there is one, holds one label per
segment; silence is ``sil``::

    boundaries:  anna-0001 0.120000 0.185000 0.240000 0.310000
    phones:      anna-0001 sil h i: sil
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_ofa.data.table import DataError, read_table, write_table


@dataclass(frozen=True)
class Segmentation:
    """Segments that tile one utterance.

    Attributes:
        ends: (N,) float64, seconds, increasing.
        phones: N labels, or None where they are unknown (unsupervised segments).
    """

    ends: np.ndarray
    phones: tuple[str, ...] | None = None

    def scaled(self, factor: float) -> Segmentation:
        """The same segments in audio that lasts ``factor`` times as long."""
        return Segmentation(self.ends * factor, self.phones)


def read_boundaries(data_dir: str | Path) -> dict[str, Segmentation]:
    """Reads ``boundaries`` (and ``phones``) of a data directory.

    Raises:
        DataError: not numbers, not increasing, or labels that do not match.
        FileNotFoundError: the directory has no ``boundaries``.
    """
    data_dir = Path(data_dir)
    path = data_dir / "boundaries"
    labels = data_dir / "phones"
    phones = read_table(labels) if labels.exists() else None
    segmentations: dict[str, Segmentation] = {}
    problems: list[str] = []
    for utt, value in read_table(path).items():
        try:
            ends = np.array([float(field) for field in value.split()])
        except ValueError:
            problems.append(f"{utt}: not a list of numbers: {value[:60]!r}")
            continue
        if not len(ends) or np.any(np.diff(ends, prepend=0.0) <= 0):
            problems.append(f"{utt}: ends must increase from above 0: {value[:60]!r}")
            continue
        names = None if phones is None else tuple(phones.get(utt, "").split())
        if names is not None and len(names) != len(ends):
            problems.append(
                f"{utt}: {len(ends)} segments but {len(names)} labels in {labels}"
            )
            continue
        segmentations[utt] = Segmentation(ends, names)
    if problems:
        raise DataError(path, problems)
    return segmentations


def write_boundaries(
    data_dir: str | Path, segmentations: Mapping[str, Segmentation]
) -> None:
    """Writes ``boundaries``, and ``phones`` where every utterance has labels."""
    data_dir = Path(data_dir)
    write_table(
        data_dir / "boundaries",
        {
            utt: " ".join(f"{end:.6f}" for end in segmentation.ends)
            for utt, segmentation in segmentations.items()
        },
    )
    phones = {
        utt: " ".join(segmentation.phones)
        for utt, segmentation in segmentations.items()
        if segmentation.phones is not None
    }
    if len(phones) == len(segmentations):
        write_table(data_dir / "phones", phones)
    else:
        (data_dir / "phones").unlink(missing_ok=True)  # would contradict the file above
