"""What each benchmark found, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_ofa.bench.operator import COPY, OURS
from espnet_ofa.files import write_file

Rows = Sequence[Mapping[str, Any]]

# Okabe and Ito: told apart by colour-blind readers too.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")


def _figure(columns: int, width: float, height: float, **options: Any) -> Any:
    """A figure that opens no display, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False, **options)[0]
    for one in axes:
        one.grid(color="0.9", lw=0.8)
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _write(figure: Any, path: str | Path) -> Path:
    return write_file(path, lambda draft: figure.savefig(draft, dpi=150))


def plot_operator(points: Rows, path: str | Path) -> Path:
    """Time over lambda and over frames: ours, torch-cif and the copy.

    Raises:
        ValueError: points of neither study.
    """
    there = {point["study"] for point in points}
    studies = [s for s in (("lambda", "lam"), ("length", "frames")) if s[0] in there]
    if not studies:
        raise ValueError(f"nothing to draw: studies are {sorted(there)}")
    figure, panels = _figure(len(studies), 1.6 + 4.0 * len(studies), 4.0)
    for axes, (study, key) in zip(panels, studies, strict=True):
        for backward in (False, True):
            chosen = [
                p for p in points if p["study"] == study and p["backward"] == backward
            ]
            for name, color in zip((OURS, "torch-cif", COPY), _COLORS, strict=False):
                found = [p for p in chosen if name in p["sides"]]
                ms = [1000 * p["sides"][name]["seconds"] for p in found]
                label = f"{name}, with backward" if backward else name
                style = {"ls": "--" if backward else "-", "marker": "o", "ms": 4}
                axes.plot(
                    [p[key] for p in found], ms, color=color, label=label, **style
                )
        axes.set_yscale("log")
        axes.set_ylabel("ms")
        axes.set_xlabel(study if study == "lambda" else "frames")
        if study == "length":
            axes.set_xscale("log")
            sizes = sorted({p[key] for p in points if p["study"] == study})
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.set_xticks([], minor=True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return _write(figure, path)


def plot_encoders(sides: Rows, path: str | Path, title: str) -> Path:
    """A bar for each encoder, its parts stacked, and how many times faster it is."""
    figure, (axes,) = _figure(1, 9.6, 1.2 + 0.34 * len(sides))
    names = [side["name"] for side in sides]
    parts = ("extractor", "compressor", "Transformer")
    for place, side in enumerate(sides):
        left = 0.0
        found = side.get("parts") or {}
        for part, color in zip(parts, _COLORS, strict=False):
            width = 1000 * found.get(part, 0.0)
            axes.barh(place, width, left=left, color=color)
            left += width
        rest = max(1000 * side["seconds"] - left, 0.0)
        axes.barh(place, rest, left=left, color=_COLORS[-1])
        if side["speedup"] is not None:
            text = f" {side['speedup']:.2f}x"
            axes.annotate(text, (left + rest, place), va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("ms")
    _legend(figure, [*parts, "not told apart"], [*_COLORS[:3], _COLORS[-1]])
    figure.suptitle(title, fontsize=11)
    return _write(figure, path)


def _legend(figure: Any, labels: Sequence[str], colors: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    figure.legend(
        handles=[
            Patch(color=color, label=label)
            for label, color in zip(labels, colors, strict=True)
        ],
        loc="outside lower center",
        ncols=min(len(labels), 6),
        frameon=False,
    )


def plot_parts(rows: Rows, path: str | Path) -> Path:
    """Recognition: one panel for each search, parts stacked over the frame period."""
    searches = list(dict.fromkeys(row["search"] for row in rows))
    parts = list(dict.fromkeys(part for row in rows for part in row["parts"]))
    figure, panels = _figure(len(searches), 2.0 + 3.2 * len(searches), 3.8)
    for axes, search in zip(panels, searches, strict=True):
        chosen = [row for row in rows if row["search"] == search]
        bottom = [0.0] * len(chosen)
        for part, color in zip(parts, _COLORS, strict=False):
            share = [
                row["rtf"] * row["parts"].get(part, 0.0) / row["seconds"]
                for row in chosen
            ]
            axes.bar(range(len(chosen)), share, bottom=bottom, color=color)
            bottom = [low + more for low, more in zip(bottom, share, strict=True)]
        labels = [
            str(row["lam"])
            if row["period_ms"] is None
            else f"{row['lam']}\n{row['period_ms']:.0f} ms"
            for row in chosen
        ]
        axes.set_xticks(range(len(chosen)), labels, fontsize=8)
        axes.set_title(search, fontsize=10)
        axes.set_xlabel("lambda, frame period")
    panels[0].set_ylabel("real-time factor")
    _legend(figure, parts, _COLORS[: len(parts)])
    return _write(figure, path)


def plot_training(rows: Rows, path: str | Path) -> Path:
    """Throughput and peak memory over the frame period."""
    figure, (left, right) = _figure(2, 8.4, 3.6)
    periods = [row["period_ms"] for row in rows]
    left.plot(periods, [r["hours_per_hour"] for r in rows], "o-", color=_COLORS[0])
    right.plot(periods, [r["peak_bytes"] / 1e6 for r in rows], "o-", color=_COLORS[1])
    left.set_ylabel("hours of audio per hour")
    right.set_ylabel("peak memory of a step (MB)")
    for axes in (left, right):
        axes.set_xlabel("measured frame period (ms)")
        axes.set_ylim(bottom=0)
    return _write(figure, path)
