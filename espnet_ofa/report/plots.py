"""The trade-off as a picture: WER against frame period and against MACs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from espnet_ofa.files import write_file
from espnet_ofa.report.seeds import split_seed
from espnet_ofa.report.tradeoff import Row, pareto_front

# Okabe and Ito: told apart by colour-blind readers too; with a marker each.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"


@dataclass(frozen=True)
class Sample:
    """One run of one system: what a dot is made of."""

    system: str
    adaptive: bool
    lam: float | None
    squeeze: object
    period_ms: float
    gmacs: float
    error: float
    errors: tuple[float, ...] = ()  # of each utterance


@dataclass(frozen=True)
class Point:
    """One dot of the picture: means over the seeds of a system.

    Attributes:
        lam: lambda; None for a system without.
        period_ms: measured frame period.
        gmacs: 1e9 MACs per second of audio.
        wer: errors in percent.
        low, high: smallest and largest of the seeds; the same where there is one run.
        seeds: of the runs that have one, in order.
        errors: of each utterance, where the runs have them.
    """

    lam: float | None
    period_ms: float
    gmacs: float
    wer: float
    low: float
    high: float
    seeds: tuple[str, ...] = ()
    errors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Curve:
    """One system on one test set.

    Attributes:
        system: its name in the legend.
        points: fixed lambdas, by frame period.
        adaptive: learned lambdas, drawn as stars.
        fixed: one frame period, which nothing chooses: drawn as a cross.
    """

    system: str
    points: tuple[Point, ...]
    adaptive: tuple[Point, ...]
    fixed: bool


def _average(samples: Sequence[Sample]) -> Point:
    lams = [sample.lam for sample in samples if sample.lam is not None]
    errors = [sample.error for sample in samples]
    seeds = {split_seed(sample.system)[1] for sample in samples}
    return Point(
        fmean(lams) if lams else None,
        fmean(sample.period_ms for sample in samples),
        fmean(sample.gmacs for sample in samples),
        fmean(errors),
        min(errors),
        max(errors),
        tuple(sorted(seed for seed in seeds if seed is not None)),
        tuple(map(fmean, zip(*(sample.errors for sample in samples), strict=True))),
    )


def tradeoff_curves(rows: Sequence[Row], test_set: str) -> list[Curve]:
    """What the picture of one test set shows; see :func:`group_curves`."""
    return group_curves(
        Sample(
            row.system,
            row.stats.adaptive,
            row.stats.lam,
            row.stats.squeeze,
            row.stats.period_ms,
            row.stats.macs_per_second / 1e9,
            row.wer,
        )
        for row in rows
        if row.stats.test_set == test_set
    )


def group_curves(samples: Iterable[Sample]) -> list[Curve]:
    """A curve for each system, in the order of ``samples``.

    Systems that are named ``name@seed`` are one curve. One point without a lambda is
    taken for all that there is to its system.
    """
    groups: dict[str, dict[tuple, list[Sample]]] = {}
    for sample in samples:
        # Each seed learns a lambda of its own.
        choice = None if sample.adaptive else (sample.lam, sample.squeeze)
        parts = groups.setdefault(split_seed(sample.system)[0], {})
        parts.setdefault((sample.adaptive, choice), []).append(sample)
    curves = []
    for system, parts in groups.items():
        points: dict[bool, list[Point]] = {False: [], True: []}
        for (adaptive, _), part in parts.items():
            points[adaptive].append(_average(part))
        for group in points.values():
            group.sort(key=lambda point: point.period_ms)
        fixed = not points[True] and [p.lam for p in points[False]] == [None]
        curves.append(Curve(system, tuple(points[False]), tuple(points[True]), fixed))
    return curves


def _label(axes, text: str, x: float, y: float, *, below: bool) -> None:
    """Small text to the right of a point, readable on top of lines."""
    from matplotlib.patheffects import withStroke

    axes.annotate(
        text,
        (x, y),
        xytext=(5, -12 if below else 6),
        textcoords="offset points",
        fontsize=8,
        color="0.3",
        zorder=4,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


Styles = dict[str, tuple[str, str]]


def choose_styles(curves: Iterable[Curve]) -> Styles:
    """A colour and a marker by system; crosses, named in the picture, share theirs."""
    styles: Styles = {}
    used = 0
    for curve in curves:
        if curve.fixed:
            styles[curve.system] = ("0.25", "x")
        elif curve.system not in styles:
            color, marker = _COLORS[used % len(_COLORS)], _MARKERS[used % len(_MARKERS)]
            styles[curve.system] = (color, marker)
            used += 1
    return styles


def draw_panel(axes, curves: Sequence[Curve], styles: Styles, name: str) -> None:
    """One panel: ``name`` of each point against its WER."""
    everything = [p for curve in curves for p in (*curve.points, *curve.adaptive)]
    front = pareto_front([(p.gmacs, p.wer) for p in everything])
    best = {id(p) for p, flag in zip(everything, front, strict=True) if flag}
    for curve in curves:
        color, marker = styles[curve.system]
        x = [getattr(point, name) for point in curve.points]
        axes.plot(x, [p.wer for p in curve.points], color=color, lw=1.8, zorder=2)
        groups = ((curve.points, marker, 46), (curve.adaptive, "*", 240))
        for points, shape, size in groups:
            for point in points:
                at = getattr(point, name)
                filled = id(point) in best or shape == "x"
                axes.scatter(
                    at,
                    point.wer,
                    marker=shape,
                    s=size,
                    color=color,
                    facecolor=color if filled else "white",
                    linewidth=1.6,
                    zorder=3,
                )
                if point.low < point.high:
                    axes.vlines(at, point.low, point.high, color=color, lw=1, zorder=1)
                # Out of the way of the curve's, which are above it.
                if curve.fixed:
                    _label(axes, curve.system, at, point.wer, below=True)
                elif point.lam is not None:
                    learned = point in curve.adaptive
                    _label(axes, f"{point.lam:.2g}", at, point.wer, below=learned)
    axes.grid(color="0.9", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.08, y=0.16)


def draw_legend(figure, curves: Sequence[Curve], styles: Styles) -> None:
    """What colours, stars, crosses and filled points mean, below the panels."""
    from matplotlib.lines import Line2D

    handles = {}
    for curve in curves:
        color, marker = styles[curve.system]
        label = curve.system
        if curve.points and not curve.fixed:
            handles[label] = Line2D([], [], color=color, marker=marker, label=label)
        if curve.adaptive:
            label += ", adaptive lambda" if curve.points else ""
            star = Line2D([], [], color=color, marker="*", ms=12, lw=0, label=label)
            handles[label] = star
    if any(curve.fixed for curve in curves):
        label = "one frame period each"
        handles[label] = Line2D([], [], color="0.25", marker="x", lw=0, label=label)
    label = "on the Pareto front"
    handles[label] = Line2D([], [], color="0.35", marker="o", lw=0, label=label)
    figure.legend(
        handles=[*handles.values()],
        loc="outside lower center",
        ncols=min(len(handles), 4, max(1, int(figure.get_figwidth() // 2.2))),
        frameon=False,
    )


def plot_tradeoff(
    rows: Sequence[Row],
    test_set: str,
    path: str | Path,
    metric: str = "word error rate (%)",
) -> Path:
    """Draw one test set: WER against frame period, and against MACs.

    Numbers beside the points are lambdas; stars are adaptive lambdas; crosses are
    systems of one frame period; filled points are on the Pareto front of WER and MACs.
    Bars are ranges over seeds.

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

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    styles = choose_styles(curves)
    draw_panel(left, curves, styles, "period_ms")
    draw_panel(right, curves, styles, "gmacs")
    left.set_xlabel("measured frame period (ms)")
    left.set_ylabel(metric)
    right.set_xlabel("encoder compute (GMACs per second of audio)")
    left.set_ylim(bottom=max(0.0, left.get_ylim()[0]))
    draw_legend(figure, curves, styles)
    title = f"{test_set}: numbers beside the points are lambda"
    figure.suptitle(title, fontsize=11)
    return write_file(path, lambda draft: figure.savefig(draft, dpi=150))
