"""Tables of results: ESPnet's RESULTS form, and one table by lambda."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from espnet_ofa.files import write_text
from espnet_ofa.report.scoring import PHONES, SPOKEN, Unit
from espnet_ofa.report.tradeoff import Row, on_front

BEGIN = "<!-- espnet_ofa results: begin (written by espnet_ofa.bin.report) -->"
END = "<!-- espnet_ofa results: end -->"
PERIOD_TOLERANCE = 0.15


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown with aligned columns; the same text reads well in a terminal."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        cells = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or value != value else format(value, form)


def setting(row: Row) -> str:
    """Lambda or squeeze; an adaptive lambda is marked, with how far it came."""
    lam = _number(row.stats.lam, ".3g")
    if row.stats.squeeze is not None:
        squeeze = f"squeeze {row.stats.squeeze}"
        return squeeze if row.stats.lam is None else f"{lam}, {squeeze}"
    if not row.stats.adaptive:
        return lam
    start, end = row.stats.lam_start, row.stats.lam
    if start is None or end is None:
        return f"{lam} (adaptive)"
    return f"{lam} (adaptive, {end - start:+.3f} from {start:.3g})"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "system": lambda row: row.system,
    "test set": lambda row: row.stats.test_set,
    "lambda": setting,
    "frame period (ms)": lambda row: _number(row.stats.period_ms, ".1f"),
    "units/s": lambda row: _number(row.stats.units_per_second, ".1f"),
    "GMACs/s": lambda row: _number(row.stats.macs_per_second / 1e9, ".3g"),
    "RTF": lambda row: _number(row.stats.rtf, ".3f"),
    "WER (%)": lambda row: _number(row.wer, ".1f"),
    "PER (%)": lambda row: _number(row.wer, ".1f"),
    "CER (%)": lambda row: _number(row.scores["cer"].error_rate, ".1f"),
    "Sub": lambda row: str(row.score.substitutions),
    "Del": lambda row: str(row.score.deletions),
    "Ins": lambda row: str(row.score.insertions),
    "capped": lambda row: str(row.stats.capped),
    "infeasible": lambda row: _number(row.stats.infeasible, "d"),
}
# Columns that go with one kind of label only.
_OTHER = {"wer": ("PER (%)",), "per": ("WER (%)", "CER (%)")}


def metric_of(rows: Sequence[Row]) -> Unit:
    """What the error rate of all rows counts: ``wer`` or ``per``.

    Raises:
        ValueError: of some it is words, of others phones.
    """
    found: dict[Unit, str] = {row.metric: row.system for row in rows}
    if len(found) != 1:
        raise ValueError(
            f"one report is on words or on phones; here are {found}: name what belongs "
            "together with --decode_dirs"
        )
    return next(iter(found))


def lambda_table(rows: Sequence[Row], short: bool = False) -> str:
    """One line per lambda: measured cost, and errors.

    Args:
        rows: in the order to show.
        short: only what fits a terminal, up to WER or PER.
    """
    metric = metric_of(rows)
    names = [name for name in COLUMNS if name not in _OTHER[metric]]
    if short:
        names = names[: names.index(f"{metric.upper()} (%)") + 1]
    if len({row.system for row in rows}) == 1:
        names.remove("system")
    body = [[COLUMNS[name](row) for name in names] for row in rows]
    return markdown_table(names, body)


def espnet_table(rows: Sequence[Row], unit: Unit) -> str:
    """ESPnet's RESULTS table: Snt, Wrd, Corr, Sub, Del, Ins, Err, S.Err."""
    header = ["dataset", "Snt", "Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err"]
    body = []
    for row in rows:
        score = row.scores[unit]
        lam = "" if row.stats.lam is None else f"/lam{row.stats.lam:.3g}"
        if row.stats.squeeze is not None:
            lam += f"/squeeze{row.stats.squeeze}"
        body.append(
            [
                f"{row.system}{lam}/{row.stats.test_set}",
                str(score.sentences),
                str(score.tokens),
                *(_number(value, ".1f") for value in score.percentages()),
            ]
        )
    return markdown_table(header, body)


def ssl_section(facts: Mapping[str, object]) -> str:
    """Measured frame period of the pre-trained upstream at each lambda.

    Args:
        facts: ``{"target_period_ms": 90.0, "target_from": "where it is from",
            "measured": [{"lam": 0.0, "period_ms": 20.0, "ceiling": 1.0}, ...]}``;
            ``target_from`` and ``ceiling``, a share of masked frames, may be missing;
            other keys are listed as they are.

    Raises:
        ValueError: a key is missing, or lambda 1 was not measured.
    """
    try:
        target = float(facts["target_period_ms"])  # type: ignore[arg-type]
        measured = {
            float(point["lam"]): (float(point["period_ms"]), point.get("ceiling"))
            for point in facts["measured"]  # type: ignore[attr-defined]
        }
        longest, _ = measured[1.0]
    except (KeyError, TypeError) as error:
        raise ValueError(
            "SSL facts must hold target_period_ms and measured: a list of "
            f"{{lam, period_ms}} with lambda 1 among them; problem: {error!r}"
        ) from error
    header = ["lambda", "frame period (ms)", "ceiling (%)"]
    rows = [
        [f"{lam:.3g}", f"{period:.1f}", _number(ceiling and 100 * ceiling, ".1f")]
        for lam, (period, ceiling) in sorted(measured.items())
    ]
    lines = ["### Pre-training: measured frame period", ""]
    lines += [markdown_table(header, rows), ""]
    lines.append(
        "- ceiling: masked frames that carry the majority label of their unit; one "
        "label a unit cannot be right more often"
    )
    off = longest / target - 1.0
    source = f" ({facts['target_from']})" if "target_from" in facts else ""
    lines.append(
        f"- target at lambda 1: {target:.1f} ms{source}; measured {off:+.1%} off it"
    )
    if abs(off) > PERIOD_TOLERANCE:
        lines.append(
            f"- **WARNING**: lambda 1 is more than {PERIOD_TOLERANCE:.0%} off its "
            "target period: lambda does not mean what its nominal period says"
        )
    shown = ("target_period_ms", "target_from", "measured")
    lines += [f"- {key}: {facts[key]}" for key in facts if key not in shown]
    return "\n".join(lines)


def setups(rows: Sequence[Row]) -> list[str]:
    """How each system was decoded; the same words once."""
    lines = []
    for row in rows:
        setup = ", ".join(f"{key} {value}" for key, value in row.stats.setup.items())
        parameters = sum(row.stats.parameters.values()) / 1e6
        line = f"- {row.system}: {parameters:.2f} M parameters; {setup}"
        if line not in lines:
            lines.append(line)
    return lines


def opening(
    rows: Sequence[Row], environment: Mapping[str, str], table: str, averages: str
) -> list[str]:
    """What every RESULTS text begins with, in paragraphs.

    Args:
        rows: every system, test set and lambda.
        environment: see :func:`espnet_ofa.report.environment.environment`.
        table: of the rows, by lambda.
        averages: table over seeds, if there are several.
    """
    parts = [
        "# RESULTS",
        "## Environments",
        "\n".join(f"- {key}: `{value}`" for key, value in environment.items()),
        "\n".join(setups(rows)),
        "## By lambda",
        "Frame period, units and RTF are measured on the test set; MACs are those of "
        "the encoder, frontend included, per second of audio, counted on "
        "utterances spread evenly over the test set.",
        table,
    ]
    if averages:
        parts += ["### Over seeds", averages]
    return parts


def results_markdown(
    rows: Sequence[Row],
    environment: Mapping[str, str],
    *,
    averages: str = "",
    ssl: Mapping[str, object] | None = None,
    plots: Sequence[str] = (),
) -> str:
    """The whole RESULTS text.

    Args:
        rows: every system, test set and lambda.
        environment: see :func:`espnet_ofa.report.environment.environment`.
        averages: table over seeds, if there are several.
        ssl: facts of pre-training; see :func:`ssl_section`.
        plots: addresses of pictures, as the text should name them.
    """
    parts = opening(rows, environment, lambda_table(rows), averages)
    metric = metric_of(rows)
    alt = f"{metric.upper()} against frame period and MACs"
    parts += [f"![{alt}]({plot})" for plot in plots]
    if ssl is not None:
        parts.append(ssl_section(ssl))
    for unit in PHONES if metric == "per" else SPOKEN:
        parts += [f"### {unit.upper()}", espnet_table(rows, unit)]
    return "\n\n".join(parts) + "\n"


def write_data(
    out: str | Path,
    rows: Sequence[Row],
    environment: Mapping[str, str],
    record: Callable[[Row], dict[str, object]] = Row.as_dict,
) -> None:
    """Write ``report.csv`` and ``report.json`` into ``out``.

    The latter has the errors of each utterance too, by its name, and ``lengths``, the
    tokens of its reference.

    Args:
        out: folder.
        rows: what to write, one record each.
        environment: see :func:`espnet_ofa.report.environment.environment`.
        record: makes flat values of a row.
    """
    out = Path(out)
    records = [
        {**record(row), "pareto": front}
        for row, front in zip(rows, on_front(rows), strict=True)
    ]
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_text(out / "report.csv", sheet.getvalue())
    lengths = {row.stats.test_set: _numbers(row.score.lengths) for row in rows}
    for found, row in zip(records, rows, strict=True):
        found["errors"] = _numbers(row.score.errors)
    content = {"environment": dict(environment), "lengths": lengths, "rows": records}
    write_text(out / "report.json", json.dumps(content, indent=2) + "\n")


def _numbers(values: Sequence[int]) -> str:
    """On one line of JSON, for readers."""
    return " ".join(map(str, values))


def update_readme(path: str | Path, results: str) -> Path:
    """Put results between two markers of a README, replacing an earlier block.

    Without markers the block goes to the end; without a file, a file is made.

    Raises:
        ValueError: one marker is there and the other is not.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    block = f"{BEGIN}\n{results.strip()}\n{END}"
    if (BEGIN in text) != (END in text) or text.count(BEGIN) > 1:
        raise ValueError(
            f"{path}: expected one {BEGIN!r} and one {END!r}, or neither; repair it"
        )
    if BEGIN in text:
        head, _, rest = text.partition(BEGIN)
        text = head + block + rest.partition(END)[2]
    else:
        text = f"{text.rstrip()}\n\n{block}\n".lstrip()
    return write_text(path, text)
