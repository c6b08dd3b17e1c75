"""Tables, pictures and the command line of the report."""

import csv
import json
from dataclasses import replace

import pytest

from espnet_ofa.bin import report
from espnet_ofa.report.plots import Curve, Point, plot_tradeoff, tradeoff_curves
from espnet_ofa.report.seeds import seeds_table
from espnet_ofa.report.tables import (
    BEGIN,
    END,
    espnet_table,
    lambda_table,
    ssl_section,
    update_readme,
)
from espnet_ofa.report.tradeoff import collect_rows

WRONG = {"u1": "one two", "u2": "four five"}
FACTS = {
    "target_period_ms": 90.0,
    "measured": [{"lam": 0.0, "period_ms": 20.0}, {"lam": 1.0, "period_ms": 88.0}],
    "utterances": 7,
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@pytest.fixture
def rows(tmp_path, decoded):
    decoded(tmp_path / "exp" / "ctc" / "lam0" / "test", 0.0, 200)
    decoded(tmp_path / "exp" / "ctc" / "lam1" / "test", 1.0, 45, WRONG, capped=1)
    learned = {"adaptive": True, "lam_start": 0.643}
    decoded(tmp_path / "exp" / "ada" / "lamown" / "test", 0.4, 140, **learned)
    return [
        *collect_rows("ctc", tmp_path / "exp" / "ctc"),
        *collect_rows("ada", tmp_path / "exp" / "ada"),
    ]


def test_lambda_table(rows):
    header, _, first, second, learned = lambda_table(rows).splitlines()
    assert cells(header)[:6] == [
        "system",
        "test set",
        "lambda",
        "frame period (ms)",
        "units/s",
        "GMACs/s",
    ]
    found = dict(zip(cells(header), cells(second), strict=True))
    assert found["frame period (ms)"] == "88.9"  # 4 s / 45
    assert found["units/s"] == "11.2"  # 45 / 4.02 s
    assert found["GMACs/s"] == "0.0225"
    assert found["RTF"] == "0.075"
    assert (found["WER (%)"], found["Del"], found["capped"]) == ("20.0", "1", "1")
    assert "0.4 (adaptive, -0.243 from 0.643)" in learned
    assert cells(first)[2] == "0"
    assert len({len(line) for line in lambda_table(rows).splitlines()}) == 1  # aligned


def test_one_system_needs_no_name(rows):
    table = lambda_table(rows[:2], short=True)
    assert cells(table.splitlines()[0])[0] == "test set"
    assert cells(table.splitlines()[0])[-1] == "WER (%)"


def test_seeds_are_one_line(tmp_path, decoded):
    decoded(tmp_path / "a" / "lam0" / "test", 0.0, 200)
    decoded(tmp_path / "b" / "lam0" / "test", 0.0, 100, WRONG)
    rows = [
        *collect_rows("ctc@0", tmp_path / "a"),
        *collect_rows("ctc@1", tmp_path / "b"),
    ]
    assert seeds_table(collect_rows("ctc", tmp_path / "a")) == ""
    header, _, line = seeds_table(rows).splitlines()
    assert dict(zip(cells(header), cells(line), strict=True)) == {
        "system": "ctc",
        "test set": "test",
        "lambda": "0",
        "frame period (ms)": "30.0 (20.0 to 40.0)",
        "seeds": "2",
        "WER (%)": "10.0",
        "range": "0.0 to 20.0",
    }


@pytest.mark.parametrize(
    ("units", "period"),
    [
        ((200, 200), "20.0"),
        ((1000, 1002), "4.0"),  # 4.000 and 3.992 ms
        ((1000, 1020), "4.0 (3.9 to 4.0)"),
        ((100, 40, 200), "53.3 (20.0 to 100.0)"),
    ],
)
def test_periods_of_seeds_have_a_range_where_it_shows(tmp_path, decoded, units, period):
    rows = []
    for seed, count in enumerate(units):
        decoded(tmp_path / f"{seed}" / "lam0" / "test", 0.0, count)
        rows += collect_rows(f"ctc@{seed}", tmp_path / f"{seed}")
    assert cells(seeds_table(rows).splitlines()[2])[3] == period


def test_espnet_table(rows):
    lines = espnet_table(rows, "wer").splitlines()
    assert lines[0].replace(" ", "") == "|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|"
    expected = "|ctc/lam1/test|2|5|80.0|0.0|20.0|0.0|20.0|50.0|"
    assert lines[3].replace(" ", "") == expected


def test_ssl_section():
    text = ssl_section(FACTS)
    assert "measured -2.2% off" in text
    assert "WARNING" not in text
    assert "utterances: 7" in text
    off = {"target_period_ms": 60, "measured": FACTS["measured"]}
    assert "WARNING" in ssl_section(off)
    with pytest.raises(ValueError, match="target_period_ms"):
        ssl_section({"measured": []})
    with pytest.raises(ValueError, match="lambda 1 among them"):
        ssl_section({"target_period_ms": 90, "measured": []})


def test_ssl_section_shows_the_ceiling_and_whose_target_it_is():
    facts = {
        "target_period_ms": 80.0,
        "target_from": "segments of training",
        "measured": [
            {"lam": 1.0, "period_ms": 88.0, "ceiling": 0.6543},
            {"lam": 0.0, "period_ms": 20.0, "ceiling": 1.0},
        ],
    }
    text = ssl_section(facts)
    header, _, first, second = text.splitlines()[2:6]
    assert cells(header) == ["lambda", "frame period (ms)", "ceiling (%)"]
    assert cells(first) == ["0", "20.0", "100.0"]
    assert cells(second) == ["1", "88.0", "65.4"]
    assert "80.0 ms (segments of training); measured +10.0% off it" in text
    assert "target_from" not in text


def test_readme_block_is_replaced(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# AN4\n\nWords before.\n")
    update_readme(readme, "first")
    text = readme.read_text()
    readme.write_text(text + "\nWords after.\n")
    update_readme(readme, "second")
    text = readme.read_text()
    assert text.startswith("# AN4\n\nWords before.\n")
    assert text.endswith("Words after.\n")
    assert text.count(BEGIN) == text.count(END) == 1
    assert "second" in text
    assert "first" not in text
    readme.write_text(f"{BEGIN}\n")
    with pytest.raises(ValueError, match="README.md: expected one"):
        update_readme(readme, "third")


def test_plotted_data(rows):
    ctc, ada = tradeoff_curves(rows, "test")
    first = Point(0.0, 20.0, 0.1, 0.0, 0.0, 0.0)
    second = Point(1.0, 4000 / 45, 0.0225, 20.0, 20.0, 20.0)
    assert ctc == Curve("ctc", (first, second), (), False)
    assert [point.lam for point in ada.adaptive] == [0.4]
    assert ada.points == ()
    assert tradeoff_curves(rows, "other") == []


def test_seeds_are_one_curve_and_fixed_rates_crosses(rows):
    slow, fast = (row for row in rows if not row.stats.adaptive)
    stats = replace(slow.stats, lam=None)
    runs = [replace(fast, stats=stats, system=f"mean2@{seed}") for seed in (0, 1)]
    runs[0] = replace(runs[0], scores=slow.scores)
    (curve,) = tradeoff_curves(runs, "test")
    assert curve.fixed
    assert curve.system == "mean2"
    assert curve.points == (Point(None, 20.0, 0.1, 10.0, 0.0, 20.0, ("0", "1")),)
    assert not tradeoff_curves([fast], "test")[0].fixed


def test_picture(rows, tmp_path):
    path = plot_tradeoff(rows, "test", tmp_path / "deep" / "plot.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in path.parent.iterdir()] == ["plot.png"]  # no drafts left
    with pytest.raises(ValueError, match=r"'other'; there is \['test'\]"):
        plot_tradeoff(rows, "other", path)


def test_command_line(rows, tmp_path, capsys):
    exp, readme = tmp_path / "exp", tmp_path / "README.md"
    facts = tmp_path / "ssl.json"
    facts.write_text(json.dumps(FACTS))
    report.main(
        f"--expdir {exp} --ssl_stats {facts} --readme {readme} "
        f"--decode_dirs ctc={exp}/ctc {exp}/ada".split()
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(exp / "report" / "tradeoff_test.png")
    assert cells(lines[-2])[:3] == ["ada", "test", "0.4 (adaptive, -0.243 from 0.643)"]
    with open(exp / "report" / "report.csv", newline="") as f:
        records = list(csv.DictReader(f))
    assert [float(record["wer"]) for record in records] == [0.0, 20.0, 0.0]
    content = json.loads((exp / "report" / "report.json").read_text())
    assert content["rows"][1]["period_ms"] == pytest.approx(4000 / 45)
    assert "pytorch version" in content["environment"]
    text = readme.read_text()
    assert "](images/tradeoff_test.png)" in text
    assert (tmp_path / "images" / "tradeoff_test.png").is_file()
    assert "1.50 M parameters; search greedy" in text
    assert "Pre-training: measured frame period" in text


def test_everything_below_expdir(rows, tmp_path, capsys):
    report.main(["--expdir", str(tmp_path / "exp")])
    table = capsys.readouterr().out
    assert "| ada" in table
    assert "| ctc" in table


def test_command_line_errors(rows, tmp_path):
    exp = tmp_path / "exp"
    with pytest.raises(ValueError, match="both go by 'a'"):
        report.main(["--decode_dirs", f"a={exp}/ctc", f"a={exp}/ada"])
    with pytest.raises(ValueError, match="must be NAME:DIR"):
        report.main(["--expdir", str(exp), "--test_set", "test"])
    with pytest.raises(FileNotFoundError, match="pre-training writes it"):
        report.main(["--expdir", str(exp), "--ssl_stats", str(tmp_path / "no")])
    (tmp_path / "facts").write_text("[1]")
    with pytest.raises(ValueError, match="JSON object"):
        report.main(["--expdir", str(exp), "--ssl_stats", str(tmp_path / "facts")])
