"""What a model costs: counted module by module, and memory to the byte."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from espnet_ofa.report.cost import (
    conv_macs,
    count_macs,
    growth_exponent,
    layer_macs,
    linear_macs,
    macs_by_module,
    shapes_only,
    upstream_macs,
)
from espnet_ofa.report.memory import peak_bytes
from espnet_ofa.report.profile import UpstreamEncode, measure_cost
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig
from espnet_ofa.upstream.extractor import ConvExtractor

SAMPLES = 12345


def upstream(extractor: str = "conv", **fields) -> OFAUpstream:
    torch.manual_seed(0)
    shape = {"dim": 16, "layers": 2, "heads": 4, "ff_dim": 40, "pos_kernel": 6}
    shape |= {"pos_groups": 2, "extractor_conf": {"dim": 24}}
    return OFAUpstream(UpstreamConfig(extractor=extractor, **shape, **fields)).eval()


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("extractor", ["conv", "logmel"])
def test_formulas_layer_by_layer(extractor, norm_first):
    model = upstream(extractor, norm_first=norm_first)
    wave = torch.randn(1, SAMPLES)
    out = model(wave, lam=1.0)
    units, frames = int(out.lengths), int(out.frame_lengths)
    found = macs_by_module(model, lambda: model(wave, lam=1.0))
    parts = upstream_macs(model, SAMPLES, units, 1.0)
    # But for one product of a matrix and a vector, which the counter does not know.
    assert found["extractor"] == pytest.approx(parts["extractor"], rel=1e-4)
    assert found["compressor"] == parts["compressor"]
    predictor = model.compressor.predictor
    mixed = frames * 24  # each frame, weighted
    assert found["compressor.predictor"] == parts["compressor"] - mixed
    assert predictor.conv.in_channels == 24
    assert found["project"] == linear_macs(model.project, units)
    position = model.transformer.position.conv
    assert found["transformer.position"] == conv_macs(position, units + 1)
    for i, layer in enumerate(model.transformer.layers):
        for name, macs in layer_macs(layer, units).items():
            assert found[f"transformer.layers.{i}.{name}"] == macs, name
        attention = layer.attention
        products = 2 * units * units * 16
        linear = linear_macs(attention.qkv, units) + linear_macs(attention.out, units)
        assert found[f"transformer.layers.{i}.attention"] == linear + products
    assert found[""] == pytest.approx(sum(parts.values()), rel=1e-4)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_an_optimised_upstream_costs_the_same(dtype):
    model = upstream("logmel")
    wave = torch.randn(1, SAMPLES)
    before = count_macs(model, lambda: model(wave, lam=0.5))
    model.optimize(dtype=dtype)
    assert count_macs(model, lambda: model(wave, lam=0.5)) == before
    units = int(model(wave, lam=0.5).lengths)
    parts = upstream_macs(shapes_only(model.config), SAMPLES, units, 0.5)
    assert sum(parts.values()) == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("samples", [100, 12345, 256 * 320 + 400, 200_000])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_convolutions_in_chunks(norm, samples):
    torch.manual_seed(0)
    model = ConvExtractor(dim=12, norm=norm).eval()
    wave, lengths = torch.randn(1, samples), torch.tensor([samples])
    found = count_macs(model, lambda: model(wave, lengths))
    shape = {"dim": 16, "layers": 1, "heads": 4, "ff_dim": 8, "pos_kernel": 6}
    conf = {"dim": 12, "norm": norm}
    config = UpstreamConfig(extractor_conf=conf, pos_groups=2, **shape)
    parts = upstream_macs(OFAUpstream(config), samples, 1, 1.0)
    assert found == pytest.approx(parts["extractor"], abs=12 * 10)  # that product again


def test_a_module_called_twice_counts_twice():
    layer = nn.Linear(3, 5)
    model = nn.Sequential(layer, nn.Linear(5, 3), layer)
    found = macs_by_module(model, lambda: model(torch.ones(2, 3)))
    assert found == {"": 3 * 2 * 15, "0": 2 * 2 * 15, "1": 2 * 15}


def test_growth_with_the_sequence():
    """Attention brings MACs from linear towards quadratic; half the units, less so."""
    sizes = [100, 200, 400, 800, 1600]
    assert growth_exponent(sizes, [3 * s for s in sizes]) == pytest.approx(1.0)
    assert growth_exponent(sizes, [s**2 for s in sizes]) == pytest.approx(2.0)
    model = upstream("logmel")
    exponents = []
    for share in (1, 2, 8):  # frames per unit
        macs = [upstream_macs(model, 320 * s, s // share, 0.5) for s in sizes]
        exponents.append(growth_exponent(sizes, [m["transformer"] for m in macs]))
    assert 1.9 > exponents[0] > exponents[1] > exponents[2] > 1.0
    with pytest.raises(ValueError, match="two sizes or more; got 1 sizes"):
        growth_exponent([3, 3], [1, 2])
    with pytest.raises(ValueError, match="above zero"):
        growth_exponent([1, 2], [0, 2])


def test_peak_memory_to_the_byte():
    x = torch.ones(1000)

    def call():
        once = x + 1  # 4000 bytes
        twice = once * 2  # 8000
        del once
        return twice.double()  # 4000 and 8000

    assert peak_bytes(call) == 12_000 == peak_bytes(call)
    kept = []
    assert peak_bytes(lambda: kept.append(x.clone())) == 4000  # outlives the call
    assert peak_bytes(lambda: None) == 0


RESIDENT = """
import torch
from espnet_ofa.report.memory import peak_resident_bytes
print(peak_resident_bytes(lambda: torch.ones(10_000_000)))
"""


def test_peak_memory_of_a_process():
    """In a fresh one: others may reuse memory that they have freed."""
    out = subprocess.run(
        [sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True
    )
    if out.stdout.strip() != "None":  # the system does not tell
        assert 30e6 < float(out.stdout) < 60e6


def test_cost_of_any_model():
    model = upstream("logmel")
    waves = [torch.randn(SAMPLES), torch.randn(2 * SAMPLES)]
    slow = measure_cost(model, waves, lam=0.0, repeats=1)
    fast = measure_cost(UpstreamEncode(model, 1.0).eval(), waves, repeats=1)
    assert (
        slow.parameters == fast.parameters == sum(p.numel() for p in model.parameters())
    )
    assert fast.period_ms is not None
    assert slow.period_ms == pytest.approx(20.0)
    assert fast.period_ms > 60
    seconds = 3 * SAMPLES / 16000
    frames = sum((len(w) - 400) // 320 + 1 for w in waves)
    assert slow.units_per_second == pytest.approx(frames / seconds)
    assert slow.rtf > 0 and fast.peak_bytes > 0
    macs = [upstream_macs(model, len(w), (len(w) - 400) // 320 + 1, 0.0) for w in waves]
    total = sum(sum(parts.values()) for parts in macs)
    assert slow.macs_per_second == pytest.approx(total / seconds, rel=1e-6)
    with pytest.raises(ValueError, match="eval mode"):
        measure_cost(model.train(), waves, lam=0.0)
    with pytest.raises(ValueError, match="at least one utterance"):
        measure_cost(model.eval(), [])
    with pytest.raises(ValueError, match="lam is for an OFAUpstream"):
        measure_cost(UpstreamEncode(model, 1.0).eval(), waves, lam=0.0)
