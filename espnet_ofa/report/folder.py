"""A folder of results: tables as Markdown, CSV and JSON, and a picture per test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_ofa.files import write_text
from espnet_ofa.report.environment import environment
from espnet_ofa.report.plots import plot_tradeoff
from espnet_ofa.report.seeds import seeds_table
from espnet_ofa.report.tables import (
    metric_of,
    results_markdown,
    update_readme,
    write_data,
)
from espnet_ofa.report.tradeoff import Row


def write_report(
    out: str | Path,
    rows: Sequence[Row],
    *,
    ssl: Mapping[str, object] | None = None,
    readme: str | Path | None = None,
) -> list[Path]:
    """Write everything into ``out``; returns the pictures, one per test set."""
    out = Path(out)
    facts = environment()
    averages = seeds_table(rows)

    def text(links: Sequence[str]) -> str:
        return results_markdown(rows, facts, averages=averages, ssl=ssl, plots=links)

    plots = _draw(rows, out)
    write_data(out, rows, facts)
    write_text(out / "report.md", text([plot.name for plot in plots]))
    if readme is not None:
        # A README's pictures are kept with it; experiments are not.
        kept = _draw(rows, Path(readme).parent / "images")
        update_readme(readme, text([f"images/{plot.name}" for plot in kept]))
    return plots


def _draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    names = dict.fromkeys(row.stats.test_set for row in rows)
    unit = "phone" if metric_of(rows) == "per" else "word"
    metric = f"{unit} error rate (%)"
    return [plot_tradeoff(rows, n, folder / f"tradeoff_{n}.png", metric) for n in names]
