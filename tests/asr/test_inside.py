"""``preencoder: ofa`` and ``encoder: ofa``: widths, periods, lengths."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.utils._pytree import tree_leaves

from espnet_ofa import set_lam
from espnet_ofa.asr.encoder import OFAEncoder
from espnet_ofa.asr.preencoder import OFAPreEncoder
from espnet_ofa.asr.stem import ConvStem
from espnet_ofa.subsampling import LamSampler, LamUnsetError, lam_to_period_ms

LENGTHS = torch.tensor([120, 71])


@pytest.fixture
def frames():
    return torch.randn(2, 120, 80)


def test_preencoder_is_transparent_at_lambda_zero(frames):
    pre = OFAPreEncoder(input_size=80, frame_ms=8, lam=0.0).eval()
    units, lengths = pre(frames, LENGTHS)
    assert pre.output_size() == 80
    assert lengths.tolist() == LENGTHS.tolist()
    assert torch.equal(units[0], frames[0])
    assert torch.equal(units[1, :71], frames[1, :71])
    assert pre.stats()["period_ms"] == 8.0


@pytest.mark.parametrize("stem", [0, 1, 2, 4])
def test_period_counts_input_frames(frames, stem):
    pre = OFAPreEncoder(80, frame_ms=8, lam=0.9, stem=stem, stem_dim=12).eval()
    units, lengths = pre(frames, LENGTHS)
    assert units.shape == (2, int(lengths.max()), 12 if stem else 80)
    assert pre.output_size() == units.shape[2]
    measured = pre.stats()["period_ms"]
    torch.testing.assert_close(measured, 8.0 * LENGTHS.sum() / lengths.sum())
    step = 8 * max(stem, 1)
    nominal = lam_to_period_ms(0.9, mean_alpha=step / 90, frame_ms=step)
    assert float(measured) == pytest.approx(nominal, rel=0.2)  # fresh, so near target


@pytest.mark.parametrize("role", ["preencoder", "encoder"])
@pytest.mark.parametrize(
    ("conf", "rate"),
    [
        ({"stem": 0, "target_period_ms": 100.0}, 0.1),
        ({"stem": 2, "target_period_ms": 50.0}, 0.4),
        ({"stem": 0, "compressor_conf": {"target_rate": 0.5}}, 0.5),
    ],
)
def test_periods_are_drawn_up_to_that_of_lambda_one(tiny, role, conf, rate):
    conf = {**conf, "frame_ms": 10, "lam_train": "uniform_period", "seed": 3}
    made = (
        OFAPreEncoder(80, **conf)
        if role == "preencoder"
        else OFAEncoder(80, "transformer", tiny, **conf)
    )
    wanted = LamSampler("uniform_period", 3, mean_alpha=rate)
    assert [made.policy() for _ in range(3)] == [wanted() for _ in range(3)]


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 64])
def test_stem_lengths_are_what_it_returns(stride, size):
    stem = ConvStem(5, 6, stride)
    out, lengths = stem(torch.randn(1, size, 5), torch.tensor([size]))
    assert out.shape == (1, -(-size // stride), 6)
    assert int(lengths) == out.shape[1]


@pytest.mark.parametrize("compressor", ["cif", "mean", "conv", "none"])
@pytest.mark.parametrize("stem", [0, 2])
def test_same_alone_and_in_a_padded_batch(frames, compressor, stem):
    lam = 0.8 if compressor == "cif" else 0.0
    pre = OFAPreEncoder(80, lam=lam, compressor=compressor, stem=stem).eval()
    units, lengths = pre(frames, LENGTHS)
    alone, n = pre(frames[1:, :71], LENGTHS[1:])
    assert int(n) == int(lengths[1])
    torch.testing.assert_close(units[1, : int(n)], alone[0], atol=1e-5, rtol=1e-4)


def test_unset_lambda(frames):
    pre = OFAPreEncoder(80, lam_train="uniform").eval()
    with pytest.raises(LamUnsetError):
        pre(frames, LENGTHS)


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="target_period_ms"):
        OFAPreEncoder(80, frame_ms=20, lam=0.5, target_period_ms=20)
    with pytest.raises(ValueError, match="lam: adaptive needs compressor: cif"):
        OFAPreEncoder(80, lam="adaptive", compressor="mean")
    with pytest.raises(ValueError, match="ctc_guard, lam needs compressor: cif"):
        OFAPreEncoder(80, lam=0.5, compressor="none", ctc_guard=True)


def test_a_fixed_rate_swallows_no_lambda(frames, tiny):
    with pytest.raises(ValueError, match="lam, lam_train needs compressor: cif"):
        OFAPreEncoder(80, lam=0.7, lam_train="uniform", compressor="mean")
    for fixed in (
        OFAPreEncoder(80, lam=0.0, compressor="mean"),
        OFAEncoder(80, "transformer", tiny, compressor="conv"),
    ):
        fixed.eval()(frames, LENGTHS)
        with pytest.raises(ValueError, match="compressor: cif"):
            set_lam(fixed, 0.9)


INNER: dict[str, dict] = {
    "transformer": {},
    "conformer": {"cnn_module_kernel": 3},
    "branchformer": {
        "cgmlp_linear_units": 32,
        "cgmlp_conv_kernel": 3,
        "without": ["linear_units"],
    },
    "e_branchformer": {"cgmlp_linear_units": 32, "cgmlp_conv_kernel": 3},
    "multiconv_conformer": {
        "cgmlp_linear_units": 32,
        "multicgmlp_kernel_sizes": "3,5",
    },
    "linear": {"without": ["attention_heads", "linear_units", "num_blocks"]},
    "rnn": {
        "num_layers": 2,
        "hidden_size": 8,
        "without": ["attention_heads", "linear_units", "num_blocks"],
    },
}


@pytest.mark.parametrize("name", sorted(INNER))
def test_inner_encoders(frames, tiny, name):
    conf = {**tiny, **INNER[name]}
    for key in conf.pop("without", ()):
        del conf[key]
    enc = OFAEncoder(80, name, conf, frame_ms=10, lam=0.9, stem_dim=16)
    out, lengths, _ = enc(frames, LENGTHS)
    assert (
        out.shape
        == (2, int(lengths.max()), enc.output_size())
        == (
            2,
            int(lengths.max()),
            16,
        )
    )
    period = enc.stats()["period_ms"]
    torch.testing.assert_close(period, 10.0 * LENGTHS.sum() / lengths.sum())
    assert 50 < float(period) < 85  # 66.7 ms nominal
    out.sum().backward()
    assert (
        dict(enc.named_parameters())["compressor.predictor.conv.weight"].grad
        is not None
    )


@pytest.mark.parametrize("projected", [True, False])
def test_inner_rnn_takes_units_in_any_order(frames, projected):
    # Batches come with the longest first, which need not have the most units.
    conf = {"num_layers": 2, "hidden_size": 8, "output_size": 16}
    conf["use_projection"] = projected
    enc = OFAEncoder(80, "rnn", conf, frame_ms=10, lam=1.0, stem=0).eval()
    close = functools.partial(torch.testing.assert_close, atol=1e-5, rtol=1e-4)
    lams = torch.tensor([1.0, 0.2])
    with enc.policy.at(lams):
        out, units, states = enc(frames, LENGTHS)
    assert units[0] < units[1]
    for b, n in enumerate(LENGTHS):
        with enc.policy.at(lams[b : b + 1]):
            one, count, own = enc(frames[b : b + 1, :n], LENGTHS[b : b + 1])
        assert int(count) == int(units[b])
        close(out[b, : int(count)], one[0])
        for ours, alone in zip(tree_leaves(states), tree_leaves(own), strict=True):
            close(ours[:, b], alone[:, 0])


@pytest.mark.parametrize("name", ["transformer", "linear"])
@pytest.mark.parametrize("layer", ["conv2d", "conv2d2", "conv2d8", "conv2d1"])
def test_inner_subsampling_is_refused(name, layer):
    found = f"{name} with input_layer: {layer} would .*; set input_layer: linear"
    with pytest.raises(ValueError, match=found):
        OFAEncoder(80, name, {"input_layer": layer}, lam=0.5)


@pytest.mark.parametrize("layer", ["linear", "wav2vec", None])
def test_inner_layers_that_keep_every_unit(frames, tiny, layer):
    conf = {**tiny, "input_layer": layer}
    enc = OFAEncoder(80, "transformer", conf, lam=1.0, stem_dim=16).eval()
    out, lengths, _ = enc(frames[:1, :16], torch.tensor([16]))
    assert out.shape[1] == int(lengths) <= 2


def test_inner_rnn_subsampling_is_refused():
    with pytest.raises(ValueError, match="set subsample to ones"):
        OFAEncoder(80, "rnn", {"subsample": [2, 1]}, lam=0.5)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("contextual_block_transformer", "streams"),
        ("contextual_block_conformer", "streams"),
        ("vgg_rnn", "subsample"),
        ("wav2vec2", "frontend: ofa"),
        ("whisper", "waveform"),
        ("nonsense", "choose one of"),
    ],
)
def test_other_encoders_are_refused_by_name(name, why):
    with pytest.raises(ValueError, match=f"{name}.*{why}"):
        OFAEncoder(80, name, {}, lam=0.5)


def test_stem_follows_the_frame_period():
    strides = []
    for frame_ms in (8, 10, 16, 20):
        encoder = OFAEncoder(80, "linear", {"output_size": 16}, frame_ms=frame_ms)
        stem = encoder.stem
        strides.append(stem.strides if isinstance(stem, ConvStem) else None)
    assert strides == [(1, 2), (1, 2), (1, 1), None]


def test_every_parameter_gets_a_gradient_at_lambda_zero(frames, tiny):
    for module in (
        OFAPreEncoder(80, lam=0.0, stem=2),
        OFAEncoder(80, "transformer", tiny, lam=0.0),
    ):
        module.train()
        module(frames, LENGTHS)[0].sum().backward()
        for name, p in module.named_parameters():
            assert p.grad is not None, name


@pytest.mark.parametrize("kind", ["transformer", "conformer"])
def test_intermediate_ctc_with_conditioning(build, batch, tiny, kind):
    inner = {
        **tiny,
        "interctc_layer_idx": [1],
        "interctc_use_conditioning": True,
    }
    model = build(
        encoder="ofa",
        encoder_conf={"encoder": kind, "encoder_conf": inner, "lam": 0.5},
        model_conf={"ctc_weight": 1.0, "interctc_weight": 0.5},
    )
    assert model.encoder.interctc_use_conditioning
    assert model.encoder.inner.conditioning_layer is model.encoder.conditioning_layer
    names = [n for n, _ in model.named_parameters() if "conditioning_layer" in n]
    assert all(n.startswith("encoder.inner.conditioning_layer") for n in names)
    loss, stats, _ = model(**batch)
    assert "loss_interctc_layer1" in stats
    loss.sum().backward()
    assert model.encoder.conditioning_layer.weight.grad.abs().sum() > 0
    (_, intermediate), lengths = model.encode(batch["speech"], batch["speech_lengths"])
    assert intermediate[0][1].shape[1] == lengths.max()


def test_ctc_trim_is_forwarded(build, batch, tiny):
    inner = {**tiny, "interctc_layer_idx": [1], "ctc_trim": True}
    model = build(
        encoder="ofa",
        encoder_conf={"encoder": "conformer", "encoder_conf": inner, "lam": 0.5},
    ).eval()
    assert model.encoder.ctc_trim is True
    out, lengths = model.encode(batch["speech"], batch["speech_lengths"])
    assert len(lengths) == 2 and out[0].shape[1] == lengths.max()
