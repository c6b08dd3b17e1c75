"""synth's local/lam_loss.py: what a CTC model's loss says about lambda."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from espnet_ofa import set_lam

SCRIPT = Path(__file__).parents[2] / "egs2/synth/ofa1/local/lam_loss.py"


@pytest.fixture(scope="module")
def lam_loss() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lam_loss", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(table: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.strip().splitlines()[2:]
    ]


def test_a_planted_valley(lam_loss) -> None:
    """Loss w (lambda - 0.4)^2, of two utterances: its slope is known at each lambda."""
    lams = np.arange(0.0, 1.01, lam_loss.STEP)
    weights = np.array([4.0, 8.0])
    away = (lams - 0.4)[:, None]
    units = np.repeat(50.0 - 25.0 * lams[:, None], 2, axis=1)
    table = lam_loss.table(
        lams, weights * away**2, 2 * weights * away, units, frames=units[0].sum()
    )
    found = rows(table)
    assert [row[0] for row in found] == [f"{x:.1f}" for x in lam_loss.SHOWN]
    for row in found:
        lam = float(row[0])
        assert float(row[1]) == pytest.approx(20 / (1 - lam / 2), abs=0.05)
        assert float(row[2]) == pytest.approx(6 * (lam - 0.4) ** 2, abs=0.005)
        error = 2 * abs(lam - 0.4) * weights.std() / 2**0.5
        for cell in row[3:5]:  # the line's slope, and the derivative's mean
            slope, _, scatter = cell.split(" ")
            assert float(slope) == pytest.approx(12 * (lam - 0.4), abs=0.051)
            assert float(scatter) == pytest.approx(error, abs=0.051)


def test_its_loss_is_that_of_the_model(
    lam_loss, run_train, corpus, tiny, monkeypatch, capsys
) -> None:
    conf = {
        "encoder": "ofa",
        "encoder_conf": {
            "encoder": "transformer",
            "encoder_conf": {**tiny, "input_layer": "linear"},
            "stem_dim": 16,
            "lam": 0.5,
        },
        "model": "ofa",
        "model_conf": {"ctc_weight": 1.0},
    }
    from espnet_ofa.bin.asr_train import main

    exp = run_train(conf, main=main)
    seen = []
    measure = lam_loss.measure

    def spy(model, batch, lam):
        found = measure(model, batch, lam)
        if lam in (0.0, 0.5):
            seen.append((model, batch, lam, found[0]))
        return found

    monkeypatch.setattr(lam_loss, "measure", spy)
    monkeypatch.setattr(
        sys,
        "argv",
        ["lam_loss.py", str(exp), str(corpus), "--checkpoint", "latest.pth"]
        + ["--utterances", "2"],
    )
    lam_loss.main()
    table = rows(capsys.readouterr().out)
    assert len(table) == len(lam_loss.SHOWN)
    assert {lam for _, _, lam, _ in seen} == {0.0, 0.5}
    for model, batch, lam, losses in seen:
        assert len(batch) == len(losses) == 2
        set_lam(model, lam)
        for one, loss in zip(batch, losses, strict=True):  # alone, by ESPnet's own CTC
            speech = torch.as_tensor(one["speech"])[None]
            text = torch.as_tensor(one["text"])[None]
            with torch.no_grad():
                units, n = model.encode(speech, torch.tensor([speech.shape[1]]))
                ours = model.ctc(units, n, text, torch.tensor([text.shape[1]]))
            assert loss == pytest.approx(ours.item(), rel=1e-4)
