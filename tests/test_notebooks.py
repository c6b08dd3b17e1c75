"""Notebooks run from top to bottom, offline, and are kept without outputs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from espnet_ofa import OFAUpstream
from espnet_ofa.upstream import UpstreamConfig

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
TINY = {
    "extractor": "logmel",
    "extractor_conf": {"dim": 12, "mels": 16},
    "dim": 8,
    "layers": 1,
    "heads": 2,
    "ff_dim": 12,
    "pos_kernel": 4,
    "pos_groups": 2,
}


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_without_outputs(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> list[str]:
    """A tiny upstream and three utterances, where the notebook looks for them."""
    torch.manual_seed(0)
    upstream = OFAUpstream(UpstreamConfig.from_dict(TINY))
    upstream.save_pretrained(tmp_path / "upstream")
    noise = np.random.default_rng(0)
    names = []
    for seconds in (1.0, 1.5, 0.7):
        names.append(f"take {len(names)}.wav")
        wave = 0.1 * noise.standard_normal(int(16000 * seconds))
        soundfile.write(tmp_path / names[-1], wave, 16000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OFA_UPSTREAM", "upstream")
    monkeypatch.setenv("OFA_WAVS", os.pathsep.join(names))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return names


def run(path: Path) -> dict[str, Any]:
    """Names that the code cells leave, run in order; Jupyter's own lines left out."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(path)):
        if cell["cell_type"] == "code":
            source = re.sub(r"(?m)^%pip .*$", "", "".join(cell["source"]))
            exec(compile(source, f"{path.name}, cell {number}", "exec"), scope)
    return scope


def test_lambda_curve(inputs, monkeypatch, capsys):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    (path,) = (path for path in NOTEBOOKS if path.stem == "lambda_curve")
    install = "".join(
        next(c for c in cells(path) if c["cell_type"] == "code")["source"]
    )
    assert re.fullmatch(r"%pip install .*\bespnet espnet_ofa\b.*", install)
    scope = run(path)
    assert list(scope["curves"]) == inputs
    for curve in scope["curves"].values():
        units, periods, times = zip(*curve, strict=True)
        assert list(units) == sorted(units, reverse=True) and units[0] > 2 * units[-1]
        assert periods[0] == 20 and list(periods) == sorted(periods)
        assert min(times) > 0
    printed = capsys.readouterr().out
    assert printed.count("| take 0.wav |") == len(scope["lams"])
    rate, period, spent = scope["figure"].axes
    for axis in (rate, spent):
        assert [line.get_label() for line in axis.lines] == inputs
    drawn = period.lines[0].get_ydata()
    assert list(drawn) == [point[1] for point in scope["curves"]["take 0.wav"]]
    assert period.lines[3].get_ydata()[-1] == pytest.approx(90)
    matplotlib.pyplot.close(scope["figure"])


def test_without_utterances_it_says_so(inputs, monkeypatch):
    monkeypatch.setenv("OFA_WAVS", "")
    (path,) = (path for path in NOTEBOOKS if path.stem == "lambda_curve")
    with pytest.raises(ValueError, match="no utterances: set wav_files"):
        run(path)
