"""Runs that differ in their seed (or start) only, as one line: mean and range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from espnet_ofa.report.tables import markdown_table, metric_of, setting
from espnet_ofa.report.tradeoff import Row

MARK = "@"


def split_seed(system: str) -> tuple[str, str | None]:
    """``name@seed`` to its parts; a name without a mark is one run of its own."""
    name, mark, seed = system.rpartition(MARK)
    return (name, seed) if mark else (system, None)


def group_seeds(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """(name, test set, lambda) -> the rows of its seeds, in the order of ``rows``.

    What a task chose for itself differs from seed to seed and goes by "adaptive".
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        name, seed = split_seed(row.system)
        if seed is None:
            continue
        stats = row.stats
        lam = "adaptive" if stats.adaptive else setting(row)
        groups.setdefault((name, stats.test_set, lam), []).append(row)
    return groups


def seeds_table(
    rows: Sequence[Row],
    metric: str | None = None,
    value: Callable[[Row], float] = lambda row: row.wer,
) -> str:
    """Mean and range over seeds, of systems named ``name@seed``; empty without any.

    Args:
        rows: all rows; those without a seed are left out.
        metric: what ``value`` is, for the header; by default WER or PER.
        value: the number of a row to average.
    """
    body = []
    for (name, test_set, lam), group in group_seeds(rows).items():
        periods = [row.stats.period_ms for row in group]
        period = f"{fmean(periods):.1f}"
        if max(periods) - min(periods) >= 0.05:
            period += f" ({min(periods):.1f} to {max(periods):.1f})"
        errors = [value(row) for row in group]
        spread = f"{min(errors):.1f} to {max(errors):.1f}"
        count = str(len(group))
        body.append(
            [
                name,
                test_set,
                lam,
                period,
                count,
                f"{fmean(errors):.1f}",
                spread,
            ]
        )
    if not body:
        return ""
    header = ["system", "test set", "lambda", "frame period (ms)", "seeds"]
    metric = metric or f"{metric_of(rows).upper()} (%)"
    return markdown_table([*header, metric, "range"], body)
