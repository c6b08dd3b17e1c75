"""Several tasks, one figure and one table: one model against one for each period.

The claim of once-for-all compression (Chen, Meng, Lee, ICASSP 2023, figure 2) is about
all of these at once: the model's curve against the systems of one frame period, and the
lambda that a task learned against the best point of a grid.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from espnet_ofa.files import write_file, write_text
from espnet_ofa.report.bootstrap import difference_interval
from espnet_ofa.report.plots import (
    Curve,
    Point,
    Sample,
    choose_styles,
    draw_legend,
    draw_panel,
    group_curves,
)
from espnet_ofa.report.tables import markdown_table

_AXES = {"WER": "word error rate (%)", "PER": "phone error rate (%)"}


@dataclass(frozen=True)
class Task:
    """One panel.

    Attributes:
        name: its title.
        metric: WER, PER or error (of classes), in percent.
        curves: a system each.
        lengths: words, phones or, of classes, one, of each utterance's reference.
    """

    name: str
    metric: str
    curves: list[Curve]
    lengths: tuple[int, ...]

    def curve(self, system: str) -> Curve | None:
        """That of ``system``, if it has this task."""
        return next((c for c in self.curves if c.system == system), None)


def _model_of(system: str, models: Sequence[str]) -> str:
    """``ofa_at_0.5@1`` is ``ofa_at@1`` where ``ofa_at`` is among the models."""
    names = "|".join(map(re.escape, models))
    found = re.fullmatch(rf"({names})_[0-9.]+(@.*)?", system)
    return system if found is None else found[1] + (found[2] or "")


def read_task(
    name: str, report: str | Path, test_set: str, models: Sequence[str]
) -> Task:
    """What ``espnet_ofa.bin.report`` wrote of one task.

    Args:
        name: title of its panel.
        report: folder with ``report.json``.
        test_set: one of those in it.
        models: systems of many frame periods; ``NAME_LAMBDA`` are points of ``NAME``.

    Raises:
        FileNotFoundError: no report there.
        ValueError: nothing of ``test_set``, or a report without errors by utterance.
    """
    path = Path(report, "report.json")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; espnet_ofa.bin.report makes it")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = found["rows"]
        kept = [row for row in rows if row["test_set"] == test_set]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: expected what espnet_ofa.bin.report writes, found something else"
        ) from error
    if not kept:
        known = sorted({row["test_set"] for row in rows})
        raise ValueError(f"{path}: nothing of test set {test_set!r}; it has {known}")
    if "lengths" not in found:
        raise ValueError(
            f"{path}: expected the errors of each utterance, found none; make the "
            "report again with this version of espnet_ofa.bin.report"
        )
    names = {"wer": "WER", "per": "PER", "accuracy": "error"}
    key = next(key for key in names if key in kept[0])
    samples = [
        Sample(
            _model_of(row["system"], models),
            row["adaptive"],
            row["lambda"],
            row.get("squeeze"),
            row["period_ms"],
            row["macs_per_second"] / 1e9,
            100.0 - row[key] if key == "accuracy" else row[key],
            tuple(map(int, row["errors"].split())),
        )
        for row in kept
    ]
    curves = [
        replace(
            curve,
            fixed=len(curve.points) == 1
            and not curve.adaptive
            and curve.system not in models,
        )
        for curve in group_curves(samples)
    ]
    lengths = tuple(map(int, found["lengths"][test_set].split()))
    return Task(name, names[key], curves, lengths)


def point_at(curve: Curve, period_ms: float) -> Point | None:
    """A model at a frame period: errors linear between its measured points.

    Returns:
        A point; None outside of the periods that were measured (0.5 ms are forgiven).
    """
    nearest = min(
        curve.points, key=lambda p: abs(p.period_ms - period_ms), default=None
    )
    if nearest is not None and abs(nearest.period_ms - period_ms) <= 0.5:
        return nearest
    for low, high in pairwise(curve.points):
        if low.period_ms < period_ms < high.period_ms:
            share = (period_ms - low.period_ms) / (high.period_ms - low.period_ms)
            pairs = zip(low.errors, high.errors, strict=True)
            return replace(
                low,
                lam=None,
                period_ms=period_ms,
                wer=low.wer + share * (high.wer - low.wer),
                errors=tuple(a + share * (b - a) for a, b in pairs),
            )
    return None


def _text(point: Point) -> str:
    if point.low == point.high:
        return f"{point.wer:.1f}"
    return f"{point.wer:.1f} ({point.low:.1f} to {point.high:.1f})"


def _lam(point: Point, digits: str) -> str:
    return "-" if point.lam is None else format(point.lam, digits)


def _compare(curve: Curve | None, rival: Point, lengths: Sequence[int]) -> str:
    """A model at a rival's period, beside it."""
    point = None if curve is None else point_at(curve, rival.period_ms)
    return "-" if point is None else _beside(point, rival, lengths)


def _beside(point: Point, rival: Point, lengths: Sequence[int]) -> str:
    """Error, the difference to the rival's, and where 95 % of that lie."""
    pairs = zip(point.errors, rival.errors, strict=True)
    low, high = difference_interval([a - b for a, b in pairs], lengths)
    return f"{point.wer:.1f} ({point.wer - rival.wer:+.1f}, {low:+.1f} to {high:+.1f})"


def rivals_table(tasks: Sequence[Task], models: Sequence[str]) -> str:
    """Each system of one frame period, and what the models have at that period.

    Args:
        tasks: all panels.
        models: systems with a curve; a task may lack some.

    Returns:
        Markdown; empty where there is no system of one period.
    """
    body = []
    for task in tasks:
        curves = [task.curve(model) for model in models]
        for rival in task.curves:
            if rival.fixed:
                point = rival.points[0]
                cells = [_compare(curve, point, task.lengths) for curve in curves]
                period = f"{point.period_ms:.1f}"
                name = f"{task.name}, {task.metric} (%)"
                body.append([name, rival.system, period, _text(point), *cells])
    header = ["task", "one frame period", "ms", "error", *models]
    return markdown_table(header, body) if body else ""


def learned_table(tasks: Sequence[Task], models: Sequence[str]) -> str:
    """Each learned lambda beside the best point of the models' grids; may be empty."""
    body = []
    for task in tasks:
        curves = [c for c in task.curves if c.system in models and c.points]
        grid = [point for curve in curves for point in curve.points]
        for curve in task.curves:
            for point in curve.adaptive:
                line = [f"{task.name}, {task.metric} (%)", curve.system]
                line += [_lam(point, ".3f"), f"{point.period_ms:.1f}"]
                if grid:
                    best = min(grid, key=lambda p: p.wer)
                    line.append(_beside(point, best, task.lengths))
                    line += [_lam(best, ".3g"), f"{best.period_ms:.1f}", _text(best)]
                else:
                    line += [_text(point), "-", "-", "-"]
                body.append(line)
    header = ["task", "system", "learned lambda", "ms", "error"]
    header += ["best lambda of the grid", "ms", "error"]
    return markdown_table(header, body) if body else ""


def seeds_note(task: Task) -> str:
    """Who has which seeds, where means of a task are not over the same ones."""
    who: dict[str, list[str]] = {}
    for curve in task.curves:
        for point in (*curve.points, *curve.adaptive):
            systems = who.setdefault(", ".join(point.seeds) or "no seed", [])
            if curve.system not in systems:
                systems.append(curve.system)
    if len(who) < 2:
        return ""
    parts = (f"{', '.join(systems)}: {seeds}" for seeds, systems in who.items())
    return f"{task.name}: means are not over the same seeds. {'; '.join(parts)}."


def plot_tasks(tasks: Sequence[Task], path: str | Path) -> Path:
    """One panel a task: error against measured frame period.

    Curves are models, stars learned lambdas, crosses systems of one period, bars ranges
    over seeds; a system has one colour in all panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(tasks), 3)
    lines = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(4.8 * columns, 3.6 * lines + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).flat
    curves = [curve for task in tasks for curve in task.curves]
    styles = choose_styles(curves)
    for task, axes in zip(tasks, panels, strict=False):
        draw_panel(axes, task.curves, styles, "period_ms")
        axes.set_title(task.name, fontsize=11)
        axes.set_xlabel("measured frame period (ms)")
        axes.set_ylabel(_AXES.get(task.metric, "error rate (%)"))
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    for axes in [*panels]:  # those without a task
        axes.remove()
    draw_legend(figure, curves, styles)
    return write_file(path, lambda draft: figure.savefig(draft, dpi=150))


def write_comparison(
    out: str | Path, tasks: Sequence[Task], models: Sequence[str]
) -> str:
    """Write ``comparison.md`` and ``comparison.png`` into ``out``; returns the text.

    Raises:
        ValueError: no task has one of the ``models``.
    """
    for model in models:
        if not any(task.curve(model) for task in tasks):
            known = sorted({c.system for task in tasks for c in task.curves})
            raise ValueError(f"no task has a system {model!r}; there are {known}")
    picture = plot_tasks(tasks, Path(out, "comparison.png"))
    about = (
        "In brackets: the difference to the system of one frame period (of a model "
        "between its measured points, linear), or of a learned lambda to the best "
        "point of the grid, and where 95 % of it lie when the "
        "utterances of the test set are drawn again, with replacement (Bisani and Ney, "
        "2004). That says nothing of other seeds. The best lambda of a grid is "
        "the best on the test set itself, which flatters it beside a learned one."
    )
    about = "\n\n".join(filter(None, [about, *map(seeds_note, tasks)]))
    parts = [rivals_table(tasks, models), learned_table(tasks, models)]
    parts = [*filter(None, parts), f"![each task over frame period]({picture.name})"]
    text = "\n\n".join([about, *parts]) + "\n"
    write_text(Path(out, "comparison.md"), text)
    return text
