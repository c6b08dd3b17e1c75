"""Several tasks in one figure and one table."""

import json
from dataclasses import replace

import numpy as np
import pytest

from espnet_ofa.bin import compare
from espnet_ofa.report.bootstrap import difference_interval
from espnet_ofa.report.comparison import point_at, read_task

UTTERANCES = 8  # all of them alike


def record(system, period, error, lam=None, *, adaptive=False, metric="wer"):
    row = {"system": system, "test_set": "test", "lambda": lam, "adaptive": adaptive}
    row |= {"squeeze": None, "period_ms": period, "macs_per_second": 2e9 / period}
    wrong = 100 - error if metric == "accuracy" else error
    row["errors"] = " ".join([str(int(2 * wrong))] * UTTERANCES)
    return {**row, metric: error}


def write(folder, rows):
    folder.mkdir()
    lengths = {"test": " ".join(["200"] * UTTERANCES)}
    text = json.dumps({"rows": rows, "lengths": lengths})
    (folder / "report.json").write_text(text)
    return folder


@pytest.fixture
def asr(tmp_path):
    rows = [
        record("ofa@0", 20.0, 10.0, 0.0),
        record("ofa@1", 20.0, 12.0, 0.0),
        record("ofa@0", 60.0, 20.0, 0.857),
        record("ofa@1", 60.0, 24.0, 0.857),
        record("none@0", 20.0, 12.5),
        record("mean2@0", 40.0, 15.0),
        record("mean5@0", 100.0, 40.0),
        record("cif@0", 45.0, 16.0, 0.643),
        record("ofa_at_0@0", 20.0, 9.0, 0.0),
        record("ofa_at_0.857@0", 60.0, 19.0, 0.857),
        record("learned", 31.0, 10.5, 0.46, adaptive=True),
    ]
    return write(tmp_path / "asr", rows)


@pytest.fixture
def words(tmp_path):
    rows = [
        record("ofa", 20.0, 90.0, 0.0, metric="accuracy"),
        record("none", 20.0, 92.0, metric="accuracy"),
    ]
    return write(tmp_path / "words", rows)


def lines(text, start):
    found = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in found]


def test_errors_between_points_and_beyond(asr):
    task = read_task("ASR", asr, "test", ["ofa"])
    curve = task.curve("ofa")
    assert curve is not None
    close = (replace(curve.points[0], period_ms=20.6, wer=99.0), *curve.points)
    for points, period, error in (
        (close, 20.2, 11.0),
        (curve.points, 20.3, 11.0),
        (curve.points, 40.0, 16.5),
    ):
        point = point_at(replace(curve, points=points), period)
        assert point is not None and point.wer == pytest.approx(error)
        assert point.errors == pytest.approx([2 * error] * UTTERANCES)
    assert point_at(curve, 100.0) is None


@pytest.mark.parametrize(
    ("period", "error"),
    [
        (19.4, None),
        (19.6, 11.0),
        (20.4, 11.0),
        (20.6, 11.0 + 11.0 * 0.6 / 40),
        (59.4, 22.0 - 11.0 * 0.6 / 40),
        (60.4, 22.0),
        (60.6, None),
    ],
)
def test_periods_are_the_same_within_half_a_millisecond(asr, period, error):
    curve = read_task("ASR", asr, "test", ["ofa"]).curve("ofa")
    assert curve is not None
    point = point_at(curve, period)
    assert (None if point is None else point.wer) == pytest.approx(error)


def test_tables_and_figure(asr, words, tmp_path, capsys):
    out = tmp_path / "out"
    tasks = [f"ASR={asr}:test", f"keywords={words}:test"]
    compare.main(["--tasks", *tasks, "--out", str(out)])
    text = capsys.readouterr().out
    assert text.rstrip() == (out / "comparison.md").read_text().rstrip()
    rivals = [line for line in lines(text, "ASR") if len(line) == 5]
    names = ["none", "mean2", "mean5", "cif", "ofa_at_0", "ofa_at_0.857"]
    assert [line[1] for line in rivals] == names
    assert [line[4] for line in rivals] == [  # alike, so that any draw is the same
        "11.0 (-1.5, -1.5 to -1.5)",
        "16.5 (+1.5, +1.5 to +1.5)",
        "-",
        "17.9 (+1.9, +1.9 to +1.9)",
        "11.0 (+2.0, +2.0 to +2.0)",
        "22.0 (+3.0, +3.0 to +3.0)",
    ]
    (learned,) = [line for line in lines(text, "ASR") if len(line) == 8]
    assert learned[1:] == [
        *("learned", "0.460", "31.0", "10.5 (-0.5, -0.5 to -0.5)"),
        *("0", "20.0", "11.0 (10.0 to 12.0)"),
    ]
    (word,) = lines(text, "keywords, error")
    assert word[3:] == ["8.0", "10.0 (+2.0, +2.0 to +2.0)"]
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "the best on the test set itself" in text
    seeds = "ASR: means are not over the same seeds. ofa: 0, 1; none, mean2, mean5, cif"
    assert seeds in text and "; learned: no seed." in text
    assert "keywords: means" not in text


def test_a_model_may_be_several_systems_and_one_of_a_fixed_rate(asr, tmp_path, capsys):
    options = ["--tasks", f"ASR={asr}:test", "--out", str(tmp_path)]
    compare.main([*options, "--models", "ofa", "ofa_at", "none"])
    text = capsys.readouterr().out
    rivals = [line for line in lines(text, "ASR") if len(line) == 7]
    assert [line[1] for line in rivals] == ["mean2", "mean5", "cif"]
    assert rivals[0][5] == "14.0 (-1.0, -1.0 to -1.0)"  # between the points of ofa_at
    (learned,) = [line for line in lines(text, "ASR") if len(line) == 8]
    assert learned[4:] == ["10.5 (+1.5, +1.5 to +1.5)", "0", "20.0", "9.0"]
    compare.main([*options, "--models", "none"])  # which has no lambda
    (learned,) = lines(capsys.readouterr().out, "ASR, WER (%) | learned")
    assert learned[4:] == ["10.5 (-2.0, -2.0 to -2.0)", "-", "20.0", "12.5"]


def test_errors_are_named(asr, tmp_path):
    def run(*options):
        compare.main([*options, "--out", str(tmp_path / "out")])

    with pytest.raises(ValueError, match="must be NAME=REPORT:TEST_SET"):
        run("--tasks", str(asr))
    with pytest.raises(FileNotFoundError, match=r"espnet_ofa.bin.report makes it"):
        run("--tasks", f"ASR={tmp_path}:test")
    with pytest.raises(ValueError, match=r"'dev'; it has \['test'\]"):
        run("--tasks", f"ASR={asr}:dev")
    with pytest.raises(ValueError, match="no task has a system 'sew'"):
        run("--tasks", f"ASR={asr}:test", "--models", "sew")
    report = json.loads((asr / "report.json").read_text())
    (asr / "report.json").write_text(json.dumps({"rows": report["rows"]}))
    with pytest.raises(ValueError, match=r"errors of each utterance.*report again"):
        run("--tasks", f"ASR={asr}:test")


def test_intervals_are_those_of_theory():
    """Of a share p of n utterances, normal for large n."""
    rng = np.random.default_rng(1)
    n, p = 4000, 0.1
    differences = (rng.random(n) < p).astype(int)
    low, high = difference_interval(differences.tolist(), [1] * n)
    mean = 100 * differences.mean()
    sigma = 100 * differences.std() / n**0.5
    expected = mean - 1.96 * sigma, mean + 1.96 * sigma
    assert (low, high) == pytest.approx(expected, abs=0.05 * sigma * 1.96)
    # Paired: what both get wrong, and how long utterances are, cancels.
    assert difference_interval([0] * 5, [1, 2, 3, 4, 500]) == (0.0, 0.0)
    low, high = difference_interval([1, 2, 3], [10, 20, 30])
    assert (low, high) == pytest.approx((10.0, 10.0))


def test_intervals_of_nothing():
    with pytest.raises(ValueError, match="found 1 for 2 of 7 tokens"):
        difference_interval([1], [3, 4])
    with pytest.raises(ValueError, match="found 0 for 0 of 0 tokens"):
        difference_interval([], [])
