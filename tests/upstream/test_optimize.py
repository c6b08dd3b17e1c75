"""An optimised upstream makes the same units; its states differ as much as stated."""

import copy

import pytest
import torch
from torch import nn

from espnet_ofa.subsampling.choice import parse_squeeze, set_squeeze
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig, extractor
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


def test_bf16_leaves_what_decides_lengths_alone():
    upstream = make(CONV).optimize("cpu", "bf16")
    kinds = {name.split(".")[0]: p.dtype for name, p in upstream.named_parameters()}
    low = {name for name, dtype in kinds.items() if dtype == torch.bfloat16}
    assert low == {"project", "transformer"}
    out = upstream(*audio(), 0.6)
    assert out.alpha.dtype == out.weights.dtype == out.durations.dtype == torch.float32


@pytest.mark.parametrize("conf", [CONV, LOGMEL], ids=["conv", "logmel"])
def test_bf16_weights_err_little_more_than_autocast(conf):
    """Autocast keeps sums and norms in fp32, and costs casts."""
    wave, lengths = audio()
    want = make(conf)(wave, lengths, 0.6).hidden_states[-1][0]
    upstream = make(conf)
    out = upstream.compress(*upstream.extract(wave, lengths), 0.6)
    with torch.autocast("cpu", torch.bfloat16):
        low = upstream.encode_units(out).states[-1][0].float()
    ours = make(conf).optimize("cpu", "bf16")(wave, lengths, 0.6)
    ours = ours.hidden_states[-1][0].float()
    assert (ours - want).norm() <= 3 * (low - want).norm()


POOLED = [
    {"query_pool": 2},
    {"key_pool": [1, 2]},
    {"compressor": "squeeze", "pos_kernel": 0, "upsampler": True},
    {"merge": {"layers": [1], "ratio": 0.3}},
]


@pytest.mark.parametrize("conf", POOLED, ids=["query", "key", "squeeze", "merge"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rival_systems_are_optimised_too(conf, dtype):
    wave, lengths = audio()
    squeeze = parse_squeeze("2,1,2") if conf.get("key_pool") else None

    def run(upstream):
        if squeeze is not None:
            set_squeeze(upstream, squeeze._replace(factor=1))
        with torch.no_grad():
            out = upstream(wave, lengths, 0.6)
            frames = upstream.to_frames(out.hidden_states[-1], out.durations, 49)
        return out, frames.float()

    (want, frames), (got, fast) = (
        run(make({**LOGMEL, **conf})),
        run(make({**LOGMEL, **conf}).optimize("cpu", dtype)),
    )
    assert torch.equal(got.lengths, want.lengths)
    if "merge" not in conf or dtype == "fp32":  # other keys, other merges
        assert (fast - frames).norm() <= 2 * TOLERANCE[dtype] * frames.norm()


def test_no_gradients_need_no_reminder(monkeypatch):
    """Optimised, nothing requires any: the fast paths are taken in grad mode too."""
    upstream = make(CONV).optimize()
    wave, lengths = audio()
    called = []
    keep = extractor.encode_rows
    monkeypatch.setattr(
        extractor, "encode_rows", lambda *args: called.append(1) or keep(*args)
    )
    upstream(wave, lengths, 0.6)
    assert called and torch.is_grad_enabled()


def test_autocast_and_packed_weights_get_along():
    upstream = make(LOGMEL).optimize()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        out = upstream(*audio(), 0.6)
    assert out.hidden_states[-1].isfinite().all()


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


def test_what_was_copied_before_still_runs():
    upstream, audio_ = make(CONV), audio()
    before = upstream(*audio_, 0.6)
    copy.deepcopy(upstream).optimize("cpu", "bf16")
    after = upstream(*audio_, 0.6)
    assert torch.equal(after.hidden_states[-1], before.hidden_states[-1])


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
