"""Guidance in the tiny configs of the recipes: added, finite, and followed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

TINY = Path(__file__).parents[2] / "egs2" / "TEMPLATE" / "ofa1" / "conf" / "tiny"
# Where lambda learns alone, nobody moves alpha.
FILES = sorted(f for f in TINY.glob("train_asr_*.yaml") if "_valid" not in f.stem)


def test_there_are_tiny_configs():
    assert len(FILES) >= 3


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_guidance_brings_alpha_to_its_rate(file, build, batch):
    conf = yaml.safe_load(file.read_text())
    conf["frontend_conf"] |= {
        "upstream": yaml.safe_load((TINY / "train_ssl.yaml").read_text())[
            "upstream_conf"
        ],
        "guidance": 5.0,
    }
    model = build(**conf).train()
    predictor = model.frontend.upstream.compressor.predictor
    with torch.no_grad():
        predictor.out.bias += 1.0  # far more units than wanted
    optimizer = torch.optim.Adam(predictor.parameters(), lr=0.05)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss, stats, _ = model(**batch)
        loss.sum().backward()
        optimizer.step()
        assert torch.isfinite(loss).all()
        losses.append(float(stats["loss_guidance"]))
    assert losses[0] > 2.0 and losses[-1] < 0.25 * losses[0]
    model.eval()
    assert torch.isfinite(model(**batch)[0]).all()
