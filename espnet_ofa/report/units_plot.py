"""A picture of what lambda does to one utterance."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet_ofa.files import write_file


class UnitsRow(NamedTuple):
    """One lambda of the picture.

    Attributes:
        lam: lambda.
        period_ms: measured frame period.
        ends_s: (U,) where each unit ends, in seconds.
    """

    lam: float
    period_ms: float
    ends_s: np.ndarray


def plot_units(
    features: np.ndarray,
    alpha: np.ndarray,
    rows: list[UnitsRow],
    path: str | Path,
    title: str = "",
    frame_s: float = 0.02,
) -> None:
    """Draw log-mel, alpha, and the units at each lambda; written atomically.

    Args:
        features: (S, mels) log-mel, normalised to mean 0 and variance 1.
        alpha: (S,) predicted weights, before lambda.
        rows: one row of units a lambda.
        path: PNG to write.
        title: e.g. the transcript.
        frame_s: seconds per frame.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [3, 1.5, 0.45 * len(rows) + 0.3]
    figure = Figure(figsize=(10, 1.1 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    mel_axes, alpha_axes, unit_axes = figure.subplots(
        3, 1, sharex=True, height_ratios=heights
    )
    seconds = len(alpha) * frame_s
    mel_axes.imshow(
        features.T,
        origin="lower",
        aspect="auto",
        vmin=-1.5,
        vmax=2.5,
        extent=(0, seconds, 0, features.shape[1]),
        cmap="magma",
    )
    mel_axes.set_ylabel("mel channel")
    mel_axes.set_title(title)
    middle = (np.arange(len(alpha)) + 0.5) * frame_s
    alpha_axes.fill_between(middle, alpha, step="mid", alpha=0.35)
    alpha_axes.step(middle, alpha, where="mid")
    alpha_axes.set_ylim(0, 1)
    alpha_axes.set_ylabel("alpha")
    shades = ("#4c72b0", "#a6bddb")
    for y, row in enumerate(reversed(rows)):
        starts = np.concatenate([[0.0], row.ends_s[:-1]])
        unit_axes.broken_barh(
            list(zip(starts, row.ends_s - starts, strict=True)),
            (y + 0.1, 0.8),
            facecolors=[shades[i % 2] for i in range(len(starts))],
        )
    unit_axes.set_yticks(
        np.arange(len(rows)) + 0.5,
        [f"λ = {r.lam:g}   {r.period_ms:.0f} ms" for r in reversed(rows)],
    )
    unit_axes.set_ylim(0, len(rows))
    unit_axes.set_xlim(0, seconds)
    unit_axes.set_xlabel("time (s); each bar is one unit")
    write_file(path, lambda draft: figure.savefig(draft, dpi=130))
