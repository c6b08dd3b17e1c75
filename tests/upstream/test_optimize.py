"""An optimised upstream makes the same units; its states differ as much as stated."""

import pytest
import torch
from torch import nn

from espnet_ofa.upstream import OFAUpstream, UpstreamConfig
from espnet_ofa.upstream.linears import Int8Linear, PackedLinear

SHAPE = {"dim": 64, "layers": 3, "heads": 4, "ff_dim": 128}
CONV = {"extractor": "conv", "extractor_conf": {"dim": 32}}
LOGMEL = {"extractor": "logmel", "extractor_conf": {"dim": 32, "mels": 20}}
# Relative to the states' norm.
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "int8": 3e-2}


def make(conf):
    torch.manual_seed(0)
    positions = {"pos_kernel": 8, "pos_groups": 4}
    return OFAUpstream(UpstreamConfig(**{**SHAPE, **positions, **conf})).eval()


def audio():
    torch.manual_seed(1)
    return torch.randn(3, 16000), torch.tensor([16000, 9000, 300])


@pytest.mark.parametrize("conf", [CONV, LOGMEL], ids=["conv", "logmel"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_outputs_stay(conf, dtype, lam):
    wave, lengths = audio()
    with torch.no_grad():
        want = make(conf)(wave, lengths, lam)
        got = make(conf).optimize("cpu", dtype)(wave, lengths, lam)
    assert torch.equal(got.lengths, want.lengths)
    assert torch.equal(got.durations, want.durations)
    for row, n in enumerate(want.lengths.tolist()):
        for a, b in zip(got.hidden_states, want.hidden_states, strict=True):
            a, b = a[row, :n].float(), b[row, :n]
            assert (a - b).norm() <= TOLERANCE[dtype] * b.norm()
    if dtype != "fp32":  # it did change something
        a, b = got.hidden_states[-1][0].float(), want.hidden_states[-1][0]
        assert (a - b).norm() > 1e-4 * b.norm()


@pytest.mark.parametrize("shape", [(5, 24), (2, 5, 24), (1, 1, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_int8_linear(shape, bias):
    torch.manual_seed(0)
    linear = nn.Linear(24, 16, bias)
    x = torch.randn(shape) * torch.logspace(-3, 3, shape[-2])[:, None]
    want = linear(x)
    got = Int8Linear(linear)(x)
    assert got.shape == want.shape
    error = (got - want).norm(dim=-1) / want.norm(dim=-1)
    assert (error < 0.02).all()  # each vector has its own scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_linear(dtype, bias):
    linear = nn.Linear(24, 16, bias).to(dtype)
    x = torch.randn(2, 5, 24, dtype=dtype)
    torch.testing.assert_close(PackedLinear(linear)(x), linear(x).detach())


def test_int8_survives_vectors_and_channels_of_zeros():
    linear = nn.Linear(8, 4)
    with torch.no_grad():
        linear.weight[1].zero_()
    out = Int8Linear(linear)(torch.zeros(3, 8))
    torch.testing.assert_close(out, linear.bias.expand(3, 4))


def test_an_optimised_upstream_is_for_inference_only(tmp_path):
    upstream = make(LOGMEL)
    keys = set(upstream.state_dict())
    assert upstream.optimize() is upstream
    assert set(upstream.state_dict()) != keys  # weight norm is folded
    assert not any(p.requires_grad for p in upstream.parameters())
    with pytest.raises(ValueError, match="cannot save an upstream that is optimised"):
        upstream.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ValueError, match="optimised for cpu, fp32 already"):
        upstream.optimize()


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="dtype must be one of fp32, bf16, int8"):
        make(LOGMEL).optimize(dtype="fp16")
    with pytest.raises(ValueError, match="int8 is for CPUs, not meta"):
        make(LOGMEL).optimize("meta", "int8")
