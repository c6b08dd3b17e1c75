"""Several tasks in one figure and one table."""

import json
import math
from dataclasses import replace

import pytest

from espnet_ofa.bin import compare
from espnet_ofa.report.comparison import error_at, read_task


def record(system, period, error, lam=None, *, adaptive=False, metric="wer"):
    row = {"system": system, "test_set": "test", "lambda": lam, "adaptive": adaptive}
    row |= {"squeeze": None, "period_ms": period, "macs_per_second": 2e9 / period}
    return {**row, metric: error}


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
    folder = tmp_path / "asr"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"rows": rows}))
    return folder


@pytest.fixture
def words(tmp_path):
    rows = [
        record("ofa", 20.0, 90.0, 0.0, metric="accuracy"),
        record("none", 20.0, 92.0, metric="accuracy"),
    ]
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"rows": rows}))
    return folder


def lines(text, start):
    found = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in found]


def test_errors_between_points_and_beyond(asr):
    task = read_task("ASR", asr, "test", ["ofa"])
    curve = task.curve("ofa")
    assert curve is not None
    close = (replace(curve.points[0], period_ms=20.6, wer=99.0), *curve.points)
    assert error_at(replace(curve, points=close), 20.2) == pytest.approx(11.0)
    assert error_at(curve, 20.3) == pytest.approx(11.0)
    assert error_at(curve, 40.0) == pytest.approx(16.5)
    assert math.isnan(error_at(curve, 100.0))


def test_tables_and_figure(asr, words, tmp_path, capsys):
    out = tmp_path / "out"
    tasks = [f"ASR={asr}:test", f"keywords={words}:test"]
    compare.main(["--tasks", *tasks, "--out", str(out)])
    text = capsys.readouterr().out
    assert text.rstrip() == (out / "comparison.md").read_text().rstrip()
    rivals = [line for line in lines(text, "ASR") if len(line) == 5]
    names = ["none", "mean2", "mean5", "cif", "ofa_at_0", "ofa_at_0.857"]
    assert [line[1] for line in rivals] == names
    errors = ["11.0 (-1.5)", "16.5 (+1.5)", "-", "17.9 (+1.9)", "11.0 (+2.0)"]
    assert [line[4] for line in rivals] == [*errors, "22.0 (+3.0)"]
    (learned,) = [line for line in lines(text, "ASR") if len(line) == 8]
    assert learned[1:] == [
        *("learned", "0.460", "31.0", "10.5"),
        *("0", "20.0", "11.0 (10.0 to 12.0)"),
    ]
    (word,) = lines(text, "keywords, error")
    assert word[3:] == ["8.0", "10.0 (+2.0)"]
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
    assert rivals[0][5] == "14.0 (-1.0)"  # between the points of ofa_at
    (learned,) = [line for line in lines(text, "ASR") if len(line) == 8]
    assert learned[5:] == ["0", "20.0", "9.0"]
    compare.main([*options, "--models", "none"])  # which has no lambda
    (learned,) = lines(capsys.readouterr().out, "ASR, WER (%) | learned")
    assert learned[5:] == ["-", "20.0", "12.5"]


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
