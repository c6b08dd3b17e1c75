"""python -m espnet_ofa.bin.demo: a table and a picture of one utterance."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_ofa.bin.demo import main
from espnet_ofa.bin.errors import one_line
from espnet_ofa.data.parallel import run_jobs
from espnet_ofa.upstream.audio import read_wave


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "tone.wav"
    t = np.arange(16000) / 16000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * t * (1 + t)), 16000)
    return path


def test_table_and_picture(upstream_dir, wav, tmp_path, capsys):
    png = tmp_path / "units.png"
    lams = ["0", "0.5", "1"]
    main(
        ["--upstream", str(upstream_dir), "--wav", str(wav), "--png", str(png)]
        + ["--title", "a tone", "--lams", *lams]
    )
    out = capsys.readouterr().out
    rows = re.findall(r"^\| ([\d.]+) \| ([\d.]+) \| (\d+) \| [\d.]+ \|$", out, re.M)
    assert [row[0] for row in rows] == lams
    periods, units = [float(r[1]) for r in rows], [int(r[2]) for r in rows]
    assert periods[0] == 20.0 and periods == sorted(periods)
    assert units == sorted(units, reverse=True) and units[2] < 0.5 * units[0]
    for period, count in zip(periods, units, strict=True):
        assert period * count == pytest.approx(20 * units[0], rel=0.01)
    assert png.read_bytes().startswith(b"\x89PNG") and out.endswith(f"{png}\n")


@pytest.mark.parametrize("rate, channels", [(8000, 1), (16000, 2)])
def test_other_audio_is_refused_by_name(upstream_dir, tmp_path, rate, channels):
    path = tmp_path / "other.wav"
    soundfile.write(path, np.zeros((8000, channels)), rate)
    with pytest.raises(ValueError, match=rf"other.wav: expected 16 kHz.*{rate} Hz"):
        main(["--upstream", str(upstream_dir), "--wav", str(path)])


def test_a_program_ends_in_one_line(upstream_dir, monkeypatch):
    argv = ["demo", "--upstream", str(upstream_dir), "--wav", "missing.wav"]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit, match="^Error: missing.wav: no such audio file"):
        main()
    with pytest.raises(FileNotFoundError):  # from Python
        main(argv[1:])


@pytest.mark.parametrize(
    ("program", "options", "said"),
    [
        ("compare", "--out a --tasks A=no/where:test", "no/where/report.json: no such"),
        ("export_onnx", "--upstream no/such/thing --out a.onnx", "no/such/thing"),
        (
            "ssl_export",
            "--train_config a.yaml --model_file a.pth --data_dir d --output_dir e",
            "a.yaml: No such file",
        ),
    ],
)
def test_other_programs_do(program, options, said, monkeypatch):
    monkeypatch.setattr("sys.argv", [program, *options.split()])
    with pytest.raises(SystemExit, match=f"^Error: .*{said}"):
        importlib.import_module(f"espnet_ofa.bin.{program}").main()


def test_every_program_does():
    others = {"asr_train", "cls_train", "ssl_train"}  # ESPnet's, hours of work
    others |= {"data"}  # returns its status
    programs = {
        path.stem: path.read_text()
        for path in Path(one_line.__code__.co_filename).parent.glob("*.py")
    }
    plain = {
        k for k, v in programs.items() if "\ndef main" in v and "@one_line" not in v
    }
    assert plain == others


def test_one_line_is_of_errors_that_explain():
    def end(error):
        def run(cmd):
            raise error

        one_line(run)()

    with pytest.raises(SystemExit, match="^Error: a.yaml: No such file or directory$"):
        end(FileNotFoundError(2, "No such file or directory", "a.yaml"))
    with pytest.raises(ValueError, match="not ours"):  # with its traceback
        end(ValueError("not ours"))


@pytest.mark.parametrize(
    ("code", "explained"),
    [
        ("raise ValueError('what to do')", True),
        ("raise RuntimeError('lambda is not set')", True),
        ("a, b = (1,)", False),
        ("int('')", False),
        ("from espnet_ofa.report import nothing_like_that", False),
        ("raise KeyError('a bug')", False),
        ("raise NotImplementedError", False),
        ("import a_package_that_is_not_there", True),
        ("import espnet_ofa.nothing_like_that", False),
    ],
)
def test_faults_of_the_code_keep_their_traceback(code, explained):
    ours = Path(one_line.__code__.co_filename).with_name("a_program.py")
    names = {}
    exec(compile(f"def run(cmd):\n    {code}", str(ours), "exec"), names)
    with pytest.raises(SystemExit if explained else Exception) as found:
        one_line(names["run"])()
    assert isinstance(found.value, SystemExit) == explained


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_workers_find_is_explained(jobs, tmp_path):
    files = [tmp_path / name for name in ("a.wav", "b.wav")]
    for file in files:
        file.write_text("no audio")
    with pytest.raises(SystemExit, match="a.wav: not readable as audio"):
        one_line(lambda cmd: run_jobs(read_wave, files, nj=jobs))()
    with pytest.raises(ValueError, match="invalid literal"):  # a fault of the code
        one_line(lambda cmd: run_jobs(int, ["one", "two"], nj=jobs))()


def test_nothing_to_draw_is_said(upstream_dir, wav):
    with pytest.raises(SystemExit, match="no lambda above 0"):
        main(["--upstream", str(upstream_dir), "--wav", str(wav), "--lams", "0"])
