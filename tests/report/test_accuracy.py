"""Accuracy by frame period: scores, tables and the report of a classification task."""

from __future__ import annotations

import csv
import json

import pytest

from espnet_ofa.bin.report import main
from espnet_ofa.report.accuracy import (
    accuracy_seeds_table,
    accuracy_table,
    collect_accuracy,
    confusions,
    score_classes,
)

TRUE = {"u1": "yes", "u2": "yes", "u3": "yes", "u4": "no"}
GIVEN = {"u1": "yes", "u2": "no", "u3": "no", "u4": "no"}


@pytest.fixture
def classified(tmp_path, decoded):
    """Two lambdas and a learned one, classified before."""
    text = tmp_path / "data" / "test" / "text"

    def lines(labels):
        return "".join(f"{key} {label}\n" for key, label in labels.items())

    def make(name, lam, units, hyps, **fields):
        decoded(tmp_path / name, lam, units, hyps, utterances=len(hyps), **fields)

    make("a/lam0/test", 0.0, 200, TRUE)
    make("a/lam1/test", 1.0, 40, GIVEN)
    make("b/lamown/test", 0.5, 100, TRUE, adaptive=True, lam_start=0.7)
    text.write_text(lines(TRUE))
    return tmp_path


def test_scores():
    score = score_classes(TRUE, GIVEN)
    assert (score.tokens, score.correct, score.substitutions) == (4, 2, 2)
    assert score.accuracy == 50.0 and score.error_rate == 50.0
    assert score.class_accuracy == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert confusions(TRUE, GIVEN) == [("yes", "no", 2)]
    assert score_classes(TRUE, TRUE).class_accuracy == 100.0


def test_what_cannot_be_scored():
    with pytest.raises(ValueError, match="1 of 4 utterances were not decoded: u4"):
        score_classes(TRUE, {k: v for k, v in GIVEN.items() if k != "u4"})
    with pytest.raises(ValueError, match="u1: expected one class, one word"):
        score_classes({"u1": "turn left"}, {"u1": "left"})


def test_report(classified, capsys):
    folders = [f"ofa={classified}/a", f"adaptive={classified}/b"]
    readme = classified / "README.md"
    main(
        [
            *("--metric", "accuracy", "--decode_dirs", *folders),
            *("--out", str(classified / "report"), "--readme", str(readme)),
        ]
    )
    printed = capsys.readouterr().out
    assert "0.5 (adaptive, -0.200 from 0.7)" in printed and "WER" not in printed
    with open(classified / "report/report.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert [(r["system"], float(r["accuracy"])) for r in rows] == [
        ("ofa", 100.0),
        ("ofa", 50.0),
        ("adaptive", 100.0),
    ]
    assert [float(r["period_ms"]) for r in rows] == [20.0, 100.0, 40.0]
    # Neither as accurate as the adaptive one nor cheaper: lambda 0 is off the front.
    assert [r["pareto"] for r in rows] == ["False", "True", "True"]
    assert json.loads((classified / "report/report.json").read_text())["rows"]
    text = readme.read_text()
    assert "| accuracy (%) |" in text and "images/tradeoff_test.png" in text
    picture = classified / "images/tradeoff_test.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    result = (classified / "a/lam1/test/score_acc/result.txt").read_text()
    assert "accuracy 50.00 %" in result and "2 yes no" in result


def test_tables(classified):
    rows = collect_accuracy("ofa@0", classified / "a")
    assert "system" not in accuracy_table(rows).splitlines()[0]
    rows += collect_accuracy("ofa@1", classified / "b")
    table = accuracy_seeds_table(rows)
    assert "| accuracy (%) |" in table and "| adaptive |" in table
