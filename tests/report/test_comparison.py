"""Several tasks in one figure and one table."""

import json
import math

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
    task = read_task("ASR", asr, "test")
    curve = task.curve("ofa")
    assert curve is not None
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
    assert [line[1] for line in rivals] == ["none", "mean2", "mean5"]
    assert [line[4] for line in rivals] == ["11.0 (-1.5)", "16.5 (+1.5)", "-"]
    (learned,) = [line for line in lines(text, "ASR") if len(line) == 8]
    assert learned[1:] == [
        *("learned", "0.460", "31.0", "10.5"),
        *("0", "20.0", "11.0 (10.0 to 12.0)"),
    ]
    (word,) = lines(text, "keywords, error")
    assert word[3:] == ["8.0", "10.0 (+2.0)"]
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_errors_are_named(asr, tmp_path):
    def run(*options):
        compare.main([*options, "--out", str(tmp_path / "out")])

    with pytest.raises(ValueError, match="must be NAME=REPORT:TEST_SET"):
        run("--tasks", str(asr))
    with pytest.raises(FileNotFoundError, match=r"espnet_ofa.bin.report makes it"):
        run("--tasks", f"ASR={tmp_path}:test")
    with pytest.raises(ValueError, match=r"'dev'; it has \['test'\]"):
        run("--tasks", f"ASR={asr}:dev")
    with pytest.raises(ValueError, match="no task has a system 'cif'"):
        run("--tasks", f"ASR={asr}:test", "--models", "cif")
