"""The trade-off of a classification task: accuracy against frame period.

A class is one word, so its error rate takes the place of the word error rate in rows,
curves and the Pareto front; tables show accuracy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from espnet_ofa.files import write_text
from espnet_ofa.report.environment import environment
from espnet_ofa.report.plots import plot_tradeoff
from espnet_ofa.report.scoring import Score, Unit, check_same_utterances, read_text
from espnet_ofa.report.seeds import seeds_table
from espnet_ofa.report.tables import (
    COLUMNS,
    markdown_table,
    opening,
    ssl_section,
    update_readme,
    write_data,
)
from espnet_ofa.report.tradeoff import Row, collect_rows

_COSTS = ("system", "test set", "lambda", "frame period (ms)", "units/s", "GMACs/s")


@dataclass(frozen=True)
class ClassScore(Score):
    """Counts of one test set; an utterance is one token, a wrong one a substitution.

    Attributes:
        class_accuracy: mean over classes of the share that is right, in percent.
    """

    class_accuracy: float = float("nan")

    @property
    def accuracy(self) -> float:
        """Utterances that are right, in percent."""
        return 100.0 * self.correct / self.tokens


def score_classes(refs: Mapping[str, str], hyps: Mapping[str, str]) -> ClassScore:
    """Compare one class per utterance.

    Args:
        refs: utterance -> true class.
        hyps: utterance -> class that was given, of the same utterances.

    Raises:
        ValueError: the two do not cover the same utterances, or a reference is not one
            word.
    """
    check_same_utterances(dict(refs), dict(hyps), "classes")
    right: dict[str, list[bool]] = defaultdict(list)
    for key, label in refs.items():
        if len(label.split()) != 1:
            raise ValueError(f"{key}: expected one class, one word; found {label!r}")
        right[label].append(hyps[key] == label)
    count = len(refs)
    errors = tuple(int(hyps[key] != refs[key]) for key in sorted(refs))
    wrong = sum(errors)
    mean = 100.0 * fmean(fmean(flags) for flags in right.values())
    return ClassScore(
        sentences=count,
        tokens=count,
        correct=count - wrong,
        substitutions=wrong,
        deletions=0,
        insertions=0,
        wrong_sentences=wrong,
        errors=errors,
        lengths=(1,) * count,
        class_accuracy=mean,
    )


def confusions(
    refs: Mapping[str, str], hyps: Mapping[str, str]
) -> list[tuple[str, str, int]]:
    """(true class, given class, how often), most frequent first."""
    pairs = Counter((refs[k], hyps[k]) for k in refs if refs[k] != hyps[k])
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [(true, given, count) for (true, given), count in ranked]


def score_classes_dir(
    folder: str | Path, reference: str | Path
) -> dict[Unit, ClassScore]:
    """Score ``folder/text`` and write ``folder/score_acc/result.txt``.

    Raises:
        FileNotFoundError, ValueError: see :func:`score_classes` and :func:`read_text`.
    """
    refs, hyps = read_text(reference), read_text(Path(folder) / "text")
    check_same_utterances(refs, hyps, folder)
    score = score_classes(refs, hyps)
    lines = [
        f"utterances {score.tokens}, wrong {score.substitutions}",
        f"accuracy {score.accuracy:.2f} %, mean over classes "
        f"{score.class_accuracy:.2f} %",
        "",
        "Confusions: times, true class, given class",
    ]
    lines += [f"{n:6d} {true} {given}" for true, given, n in confusions(refs, hyps)]
    write_text(Path(folder) / "score_acc" / "result.txt", "\n".join(lines) + "\n")
    return {"wer": score}


def collect_accuracy(
    system: str, decode_dir: str | Path, references: Mapping[str, str] | None = None
) -> list[Row]:
    """As :func:`espnet_ofa.report.tradeoff.collect_rows`, for classes."""
    return collect_rows(system, decode_dir, references, score_classes_dir)


def class_score(row: Row) -> ClassScore:
    """What a row of :func:`collect_accuracy` scored."""
    score = row.scores["wer"]
    assert isinstance(score, ClassScore)
    return score


def record(row: Row) -> dict[str, object]:
    """Flat values, for CSV and JSON."""
    score = class_score(row)
    return {
        **row.costs(),
        "accuracy": score.accuracy,
        "class_accuracy": score.class_accuracy,
        "wrong": score.substitutions,
        "parameters": sum(row.stats.parameters.values()),
    }


def accuracy_table(rows: Sequence[Row]) -> str:
    """One line per system, test set and lambda: measured cost, and accuracy."""
    columns: dict[str, Callable[[Row], str]]
    columns = {name: COLUMNS[name] for name in (*_COSTS, "RTF")}
    columns |= {
        "accuracy (%)": lambda row: f"{class_score(row).accuracy:.2f}",
        "mean of classes (%)": lambda row: f"{class_score(row).class_accuracy:.2f}",
        "wrong": lambda row: str(class_score(row).substitutions),
        "utterances": lambda row: str(row.stats.utterances),
    }
    if len({row.system for row in rows}) == 1:
        del columns["system"]
    body = [[cell(row) for cell in columns.values()] for row in rows]
    return markdown_table(list(columns), body)


def accuracy_seeds_table(rows: Sequence[Row]) -> str:
    """Mean and range over seeds, of systems named ``name@seed``; empty without any."""
    return seeds_table(rows, "accuracy (%)", lambda row: class_score(row).accuracy)


def write_accuracy_report(
    out: str | Path,
    rows: Sequence[Row],
    *,
    ssl: Mapping[str, object] | None = None,
    readme: str | Path | None = None,
) -> list[Path]:
    """Write tables and pictures into ``out``; returns the pictures.

    Args:
        out: folder.
        rows: of :func:`collect_accuracy`.
        ssl: facts of pre-training; see :func:`espnet_ofa.report.tables.ssl_section`.
        readme: file that gets RESULTS as well, between its markers.
    """
    out = Path(out)
    facts = environment()
    write_data(out, rows, facts, record)
    plots = _draw(rows, out)
    write_text(out / "report.md", _markdown(rows, facts, ssl, [p.name for p in plots]))
    if readme is not None:
        kept = _draw(rows, Path(readme).parent / "images")
        links = [f"images/{plot.name}" for plot in kept]
        update_readme(readme, _markdown(rows, facts, ssl, links))
    return plots


def _draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    names = dict.fromkeys(row.stats.test_set for row in rows)
    return [
        plot_tradeoff(rows, name, folder / f"tradeoff_{name}.png", "error rate (%)")
        for name in names
    ]


def _markdown(
    rows: Sequence[Row],
    facts: Mapping[str, str],
    ssl: Mapping[str, object] | None,
    plots: Sequence[str],
) -> str:
    averages = accuracy_seeds_table(rows)
    parts = opening(rows, facts, accuracy_table(rows), averages)
    parts += [f"![error rate against frame period and MACs]({plot})" for plot in plots]
    if ssl is not None:
        parts.append(ssl_section(ssl))
    return "\n\n".join(parts) + "\n"
