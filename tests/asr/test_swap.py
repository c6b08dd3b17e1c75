"""Every block of docs/swap.md trains with ESPnet's command and decodes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml

from espnet_ofa.asr.adapter import Adapter
from espnet_ofa.subsampling import lam_to_period_ms

DOC = (Path(__file__).parents[2] / "docs" / "swap.md").read_text(encoding="utf-8")
STOCK: dict[str, dict] = {}
SWAPS: dict[str, dict] = {}
for _body in re.findall(r"```yaml\n(.*?)```", DOC, re.S):
    _title = _body.splitlines()[0]
    if _title.startswith("# stock: "):
        STOCK[_title[len("# stock: ") :]] = yaml.safe_load(_body)
    else:
        _name, _base = re.fullmatch(r"# swap: (\S+) on (\S+)", _title).groups()  # type: ignore[union-attr]
        SWAPS[_name] = {**STOCK[_base], **yaml.safe_load(_body)}


def _shrink(conf: dict, small: dict) -> dict:
    """The same config with small sizes, wherever they are nested."""
    return {
        key: _shrink(value, small) if isinstance(value, dict) else small.get(key, value)
        for key, value in conf.items()
    }


def test_both_stock_configs_are_swapped():
    assert set(STOCK) == {"transformer", "conformer"}
    assert len(SWAPS) == 5


@pytest.mark.parametrize("name", sorted(SWAPS))
def test_swap_trains_and_decodes(name, run_train, corpus, upstream_dir, tiny):
    from espnet2.bin.asr_inference import Speech2Text

    from espnet_ofa import set_lam

    small = {**tiny, "num_blocks": 1, "cnn_module_kernel": 3, "warmup_steps": 2}
    conf = _shrink(SWAPS[name], small)
    if conf.get("frontend") == "ofa":
        conf["frontend_conf"]["upstream"] = str(upstream_dir)
    exp = run_train(conf)
    speech2text = Speech2Text(
        exp / "config.yaml",
        exp / "valid.acc.best.pth",
        maxlenratio=-4.0,
        beam_size=2,
        ctc_weight=0.3,
    )
    wave, _ = soundfile.read(corpus / "utt1.wav", dtype="float32")
    model: Any = speech2text.asr_model
    lengths = {}
    for lam in (0.0, 1.0):
        set_lam(model, lam)
        speech = torch.tensor(wave)[None]
        out, olens = model.encode(speech, torch.tensor([len(wave)]))
        lengths[lam] = int(olens)
        assert out.shape[1] == lengths[lam]
        text, *_ = speech2text(wave)[0]
        assert isinstance(text, str)
    assert lengths[1.0] < 0.5 * lengths[0.0]
    assert any(isinstance(m, Adapter) for m in model.modules())


def test_table_of_nominal_periods():
    rows = re.findall(r"^\| ([\d.]+) \|" + r" ([\d.]+) \|" * 4, DOC, re.M)
    assert len(rows) == 7
    for lam, *cells in rows:
        for frame_ms, cell in zip((16, 20, 20, 8), cells, strict=True):
            period = lam_to_period_ms(
                float(lam), mean_alpha=frame_ms / 90, frame_ms=frame_ms
            )
            assert period == pytest.approx(float(cell), abs=0.06)
