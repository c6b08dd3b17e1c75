"""The trade-off as a picture: WER against frame period and against MACs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_ofa.files import write_file
from espnet_ofa.report.tradeoff import Row, pareto_front

# Okabe and Ito: told apart by colour-blind readers too; with a marker each.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"


@dataclass(frozen=True)
class Point:
    """One dot of the picture."""

    lam: float | None
    period_ms: float
    gmacs: float
    wer: float


@dataclass(frozen=True)
class Curve:
    """One system on one test set.

    Attributes:
        system: its name in the legend.
        points: fixed lambdas, by frame period.
        adaptive: learned lambdas, drawn as stars.
    """

    system: str
    points: tuple[Point, ...]
    adaptive: tuple[Point, ...]


def tradeoff_curves(rows: Sequence[Row], test_set: str) -> list[Curve]:
    """What the picture of one test set shows, in the order of ``rows``."""
    curves = []
    chosen = [row for row in rows if row.stats.test_set == test_set]
    for system in dict.fromkeys(row.system for row in chosen):
        points: dict[bool, list[Point]] = {False: [], True: []}
        for row in chosen:
            if row.system != system:
                continue
            stats = row.stats
            gmacs = stats.macs_per_second / 1e9
            points[stats.adaptive].append(
                Point(stats.lam, stats.period_ms, gmacs, row.wer)
            )
        for group in points.values():
            group.sort(key=lambda point: point.period_ms)
        curves.append(Curve(system, tuple(points[False]), tuple(points[True])))
    return curves


def _label(axes, text: str, x: float, y: float) -> None:
    """Small text above and to the right of a point, readable on top of lines."""
    from matplotlib.patheffects import withStroke

    axes.annotate(
        text,
        (x, y),
        xytext=(5, 6),
        textcoords="offset points",
        fontsize=8,
        color="0.3",
        zorder=4,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def _draw(axes, curves: Sequence[Curve], name: str) -> None:
    """One panel: ``name`` of each point against its WER."""
    everything = [p for curve in curves for p in (*curve.points, *curve.adaptive)]
    front = pareto_front([(p.gmacs, p.wer) for p in everything])
    best = {id(p) for p, flag in zip(everything, front, strict=True) if flag}
    for number, curve in enumerate(curves):
        color = _COLORS[number % len(_COLORS)]
        marker = _MARKERS[number % len(_MARKERS)]
        x = [getattr(point, name) for point in curve.points]
        axes.plot(x, [p.wer for p in curve.points], color=color, lw=1.8, zorder=2)
        groups = ((curve.points, marker, 46), (curve.adaptive, "*", 240))
        for points, shape, size in groups:
            for point in points:
                axes.scatter(
                    getattr(point, name),
                    point.wer,
                    marker=shape,
                    s=size,
                    facecolor=color if id(point) in best else "white",
                    edgecolor=color,
                    linewidth=1.6,
                    zorder=3,
                )
                if point.lam is not None:
                    _label(axes, f"{point.lam:.2g}", getattr(point, name), point.wer)
    axes.grid(color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.08, y=0.16)


def plot_tradeoff(
    rows: Sequence[Row],
    test_set: str,
    path: str | Path,
    metric: str = "word error rate (%)",
) -> Path:
    """Draw one test set: WER against frame period, and against MACs.

    Numbers beside the points are lambdas; stars are adaptive lambdas; filled points are
    on the Pareto front of WER and MACs.

    Args:
        rows: all rows; those of other test sets are left out.
        test_set: which to draw.
        path: PNG file to write.
        metric: what the errors of ``rows`` are, for the axis.

    Raises:
        ValueError: no row belongs to ``test_set``.
    """
    curves = tradeoff_curves(rows, test_set)
    if not curves:
        known = sorted({row.stats.test_set for row in rows})
        raise ValueError(f"no result on test set {test_set!r}; there is {known}")
    # Imported here: tables do not need it. Figure() alone never opens a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw(left, curves, "period_ms")
    _draw(right, curves, "gmacs")
    left.set_xlabel("measured frame period (ms)")
    left.set_ylabel(metric)
    right.set_xlabel("encoder compute (GMACs per second of audio)")
    left.set_ylim(bottom=max(0.0, left.get_ylim()[0]))
    handles = []
    for i, curve in enumerate(curves):
        color, marker = _COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)]
        label = curve.system
        if curve.points:
            handles.append(Line2D([], [], color=color, marker=marker, label=label))
        if curve.adaptive:
            label += ", adaptive lambda" if curve.points else ""
            star = Line2D([], [], color=color, marker="*", ms=12, lw=0, label=label)
            handles.append(star)
    front = Line2D([], [], color="0.35", marker="o", lw=0, label="on the Pareto front")
    handles.append(front)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 4),
        frameon=False,
    )
    title = f"{test_set}: numbers beside the points are lambda"
    figure.suptitle(title, fontsize=11)
    return write_file(path, lambda draft: figure.savefig(draft, dpi=150))
