"""lam="auto": what fits, what is refused, and what a calibration belongs to."""

import argparse
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import espnet_ofa
from espnet_ofa.report import budget
from espnet_ofa.report.budget import (
    Calibration,
    Price,
    find_calibration,
    lam_for_budget,
    load_calibrations,
    machine,
    model_checksum,
    nominal_calibration,
    save_calibration,
    search_setup,
)
from espnet_ofa.report.cost import count_macs
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig
from espnet_ofa.upstream.importers.source import read_weights

LAMS = [0.0, 0.05, 0.5, 1.0, 1.5]


def prices(costs) -> list[Price]:
    return [
        Price(lam, 20.0, 1e9 * rtf, rtf) for lam, rtf in zip(LAMS, costs, strict=True)
    ]


def cost_at(lam: float, costs) -> float:
    """Straight lines between the measured lambdas above 0."""
    if lam == 0:
        return costs[0]
    for i in range(1, len(LAMS) - 1):
        if LAMS[i] <= lam <= LAMS[i + 1]:
            share = (lam - LAMS[i]) / (LAMS[i + 1] - LAMS[i])
            return costs[i] + share * (costs[i + 1] - costs[i])
    raise AssertionError(lam)


@given(
    costs=st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5),
    rtf=st.floats(0.005, 1.1),
)
def test_least_compression_that_fits(costs, rtf):
    if rtf < min(costs[0], costs[-1]):  # the last of a falling curve is its least
        with pytest.raises(ValueError, match="no lambda keeps"):
            lam_for_budget(prices(costs), max_rtf=rtf)
        return
    lam = lam_for_budget(prices(costs), max_rtf=rtf)
    assert cost_at(lam, costs) <= rtf * (1 + 1e-9)
    if lam > 0:
        # Nothing larger is dearer than the budget, and a bit less would not have done.
        assert all(costs[i] <= rtf for i in range(1, 5) if LAMS[i] >= lam)
        assert costs[0] > rtf
        if lam > LAMS[1]:
            assert max(cost_at(lam - 1e-3, costs), *costs[1:]) > rtf


def test_examples():
    falling = prices([0.09, 0.1, 0.06, 0.04, 0.03])
    assert lam_for_budget(falling, max_rtf=0.09) == 0.0
    assert lam_for_budget(falling, max_rtf=0.08) == pytest.approx(0.275)
    assert lam_for_budget(falling, max_rtf=0.04) == pytest.approx(1.0)
    assert lam_for_budget(falling, max_macs_per_second=0.08e9) == pytest.approx(0.275)
    with pytest.raises(ValueError, match="the least is 0.03, at lambda 1.5"):
        lam_for_budget(falling, max_rtf=0.02)
    with pytest.raises(ValueError, match="needs one of max_rtf and max_macs"):
        lam_for_budget(falling)
    with pytest.raises(ValueError, match="above zero; got -1"):
        lam_for_budget(falling, max_rtf=-1.0)
    with pytest.raises(ValueError, match="above zero; got nan"):
        lam_for_budget(falling, max_rtf=float("nan"))
    untimed = [Price(0.0, 20.0, 1e9)]
    with pytest.raises(ValueError, match="needs measured times; measure on this"):
        lam_for_budget(untimed, max_rtf=0.5)


def calibration(**fields) -> Calibration:
    values = {"model": "a" * 64, "machine": machine(), "setup": {"search": "greedy"}}
    return Calibration(**{**values, "prices": prices([0.5] * 5), **fields})


def test_a_file_keeps_what_differs(tmp_path):
    path = tmp_path / "calibration.json"
    save_calibration(calibration(), path)
    other = calibration(setup={"search": "beam"})
    save_calibration(other, path)
    again = calibration(prices=prices([0.4] * 5))
    save_calibration(again, path)
    assert load_calibrations(tmp_path) == [other, again]
    model, here = "a" * 64, machine()
    assert find_calibration(path, model, here=here, setup={"search": "beam"}) == other
    found = find_calibration(path, model, setup={"search": "greedy", "dtype": "x"})
    assert found == again


def test_what_belongs_elsewhere_is_refused(tmp_path, caplog):
    path = save_calibration(calibration(facts={"torch": "0.4"}), tmp_path / "c.json")
    model, here = "a" * 64, machine()
    with pytest.raises(
        ValueError, match=r"other weights \(expected bbbbbbbbbbbb, found"
    ):
        find_calibration(path, "b" * 64)
    elsewhere = {**here, "threads": 1000}
    with pytest.raises(ValueError, match="another machine.*'threads': 1000"):
        find_calibration(path, model, here=elsewhere)
    assert find_calibration(path, model).model == model  # MACs are the same anywhere
    with pytest.raises(ValueError, match="measured for other settings"):
        find_calibration(path, model, setup={"search": "beam"})
    assert not caplog.records
    find_calibration(path, model, here=here)
    assert "measured with torch 0.4" in caplog.text
    with pytest.raises(
        FileNotFoundError, match="no such file; measure on this machine"
    ):
        load_calibrations(tmp_path)
    for text in ("{", "[]", "{}", json.dumps({"calibrations": [{"model": "a"}]})):
        path.write_text(text)
        with pytest.raises(ValueError, match="not a calibration"):
            load_calibrations(path)


def upstream(**fields) -> OFAUpstream:
    torch.manual_seed(0)
    shape = {"dim": 16, "layers": 2, "heads": 2, "ff_dim": 24, "pos_kernel": 4}
    shape |= {"extractor_conf": {"dim": 8}}  # the Transformer costs more than alpha
    config = UpstreamConfig(extractor="logmel", pos_groups=2, **{**shape, **fields})
    return OFAUpstream(config).eval()


def test_checksum_follows_the_weights_not_lambda():
    model = upstream()
    before = model_checksum(model)
    espnet_ofa.set_lam(model, 0.7)
    model.policy.draws.fill_(3)
    assert model_checksum(model) == before == model_checksum(upstream())
    with torch.no_grad():
        model.project.bias[0] += 1e-6
    assert model_checksum(model) != before
    assert model_checksum(upstream().half()) != before
    assert model_checksum(upstream().optimize(dtype="int8")) != before
    quantised = nn.ao if hasattr(nn, "ao") else torch.ao.nn
    layer = quantised.quantized.dynamic.Linear(3, 2)
    assert model_checksum(layer) == model_checksum(layer)
    learned = {"frontend.policy.learnable.raw": torch.zeros(1)}
    assert model_checksum(learned) != model_checksum({})


def test_checksum_is_that_of_the_values_whatever_the_file(tmp_path):
    model = upstream()
    torch.save(model.state_dict(), tmp_path / "model.pth")
    model.save_pretrained(tmp_path)
    found = [
        model_checksum(read_weights(path))
        for path in (tmp_path / "model.pth", tmp_path / "model.safetensors")
    ]
    assert found == [model_checksum(model)] * 2


def test_a_setup_tells_of_a_language_model_only_where_there_is_one():
    options = dict.fromkeys(("ctc_weight", "penalty", "maxlenratio"), 0.0)
    options |= {"search": "beam", "beam_size": 2, "batch_size": 1, "dtype": "float32"}
    args = argparse.Namespace(**options, lm_weight=1.0, lm_file=None)
    assert "lm_weight" not in search_setup(args)
    args.lm_file = "lm.pth"
    assert search_setup(args)["lm_weight"] == 1.0


def test_macs_by_formula_need_no_measurement():
    model = upstream()
    found = nominal_calibration(model)
    costs = [price.macs_per_second for price in found.prices]
    assert costs[1:] == sorted(costs[1:], reverse=True)
    lam = espnet_ofa.set_lam(model, "auto", max_macs_per_second=costs[12])
    assert lam > 0
    # What it then spends on an utterance with just that rate.
    wave = torch.randn(1, 15 * 16000)
    spent = count_macs(model, lambda: model(wave)) / 15
    assert spent <= costs[12] * 1.05
    assert nominal_calibration(upstream().optimize()).prices[3] == pytest.approx(
        nominal_calibration(model).prices[3]
    )


def test_auto_wants_a_budget_and_a_table():
    model = upstream()
    with pytest.raises(ValueError, match="lam='auto' needs calibration="):
        espnet_ofa.set_lam(model, "auto", max_rtf=0.1)
    with pytest.raises(ValueError, match="a budget goes with lam='auto' only"):
        espnet_ofa.set_lam(model, 0.5, max_rtf=0.1)
    with pytest.raises(ValueError, match="a number or 'auto'; got 'fast'"):
        espnet_ofa.set_lam(model, "fast", max_rtf=0.1)
    with pytest.raises(ValueError, match="has no lambda to choose"):
        fixed = upstream(compressor="mean")
        espnet_ofa.set_lam(fixed, "auto", max_macs_per_second=1e9)
    table = calibration()
    assert espnet_ofa.set_lam(model, "auto", max_rtf=0.5, calibration=table) == 0.0
    assert budget.CALIBRATION_NAME == "calibration.json"
