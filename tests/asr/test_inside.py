"""``preencoder: ofa`` and ``encoder: ofa``: widths, periods, lengths."""

from __future__ import annotations

import logging

import pytest
import torch

from espnet_ofa.asr.encoder import OFAEncoder
from espnet_ofa.asr.preencoder import OFAPreEncoder
from espnet_ofa.asr.stem import ConvStem
from espnet_ofa.subsampling import LamUnsetError, lam_to_period_ms

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
    pre = OFAPreEncoder(80, lam=0.8, compressor=compressor, stem=stem).eval()
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
    with pytest.raises(ValueError, match="ctc_guard needs compressor: cif"):
        OFAPreEncoder(80, lam=0.5, compressor="none", ctc_guard=True)


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


@pytest.mark.parametrize("layer", ["conv2d", "conv2d2", "conv2d8", "conv2d1", None])
def test_inner_subsampling_is_refused(layer):
    with pytest.raises(ValueError, match="input_layer: linear"):
        OFAEncoder(80, "transformer", {"input_layer": layer}, lam=0.5)


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
    conf = {"output_size": 16}
    assert isinstance(OFAEncoder(80, "linear", conf, lam=0.5).stem, ConvStem)
    assert not isinstance(
        OFAEncoder(80, "linear", conf, lam=0.5, frame_ms=20).stem, ConvStem
    )


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


def _warnings(caplog):
    return [r.message for r in caplog.records if "espnet_ofa" in r.name]


def test_subsampling_behind_a_compressor_warns(build, tiny, caplog):
    pre = {"input_size": 80, "lam": 0.5}
    with caplog.at_level(logging.WARNING):
        build(preencoder="ofa", preencoder_conf=pre, encoder_conf=tiny)
    (message,) = _warnings(caplog)
    assert "input_layer: conv2d" in message and "input_layer: linear" in message
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        build(preencoder="ofa", preencoder_conf=pre)  # input_layer: linear
    assert _warnings(caplog) == []


@pytest.mark.parametrize("role", ["preencoder", "encoder"])
def test_frame_ms_is_the_frontends(build, tiny, role):
    conf = {
        "preencoder": {"input_size": 80, "lam": 0.5},
        "encoder": {"encoder": "transformer", "encoder_conf": tiny, "lam": 0.5},
    }[role]
    confs = {role: "ofa", f"{role}_conf": conf}
    confs["frontend_conf"] = {"hop_length": 320, "fs": "16k"}
    assert getattr(build(**confs), role).frame_ms == 20.0
    assert conf.pop("frame_ms") == 20.0  # in the config that training leaves behind
    conf["frame_ms"] = 8
    with pytest.raises(
        ValueError, match=rf"{role}_conf: frame_ms is 8, .* every 20 ms"
    ):
        build(**confs)


def test_frame_ms_of_a_frontend_that_does_not_tell(build):
    pre = {"input_size": 80, "lam": 0.5, "frame_ms": 20}
    cnn = {"norm_mode": "layer_norm", "conv_mode": "standard", "bias": True}
    cnn["shapes"] = [[8, 10, 5], [8, 8, 4], [80, 8, 8]]  # 160 samples
    confs = {"frontend": "wav2vec_cnn", "frontend_conf": cnn, "preencoder": "ofa"}
    with pytest.raises(ValueError, match="frame_ms is 20.*wav2vec_cnn.*every 10 ms"):
        build(**confs, preencoder_conf=pre)
    del pre["frame_ms"]
    random = torch.get_rng_state()
    frontend = build(**confs, preencoder_conf=pre).frontend
    assert frontend.training and pre["frame_ms"] == 10.0
    torch.set_rng_state(random)  # looking at the frontend drew nothing
    again = build(**confs, preencoder_conf=pre).state_dict()
    torch.set_rng_state(random)
    del pre["frame_ms"]
    for name, tensor in build(**confs, preencoder_conf=pre).state_dict().items():
        assert torch.equal(tensor, again[name]), name


def test_units_have_no_period_to_compare(build, batch, tiny):
    pre = {"input_size": 80, "lam": 1.0}
    enc = {"encoder": "transformer", "encoder_conf": tiny, "lam": 0.5}
    model = build(
        preencoder="ofa", preencoder_conf=pre, encoder="ofa", encoder_conf=enc
    )
    assert model.preencoder.frame_ms == 8.0
    assert model.encoder.frame_ms == 8.0  # the default: units have no hop to measure
    model(**batch)


def test_global_statistics_and_specaug_warn(build, upstream_conf, caplog, tmp_path):
    import numpy as np

    np.savez(tmp_path / "s.npz", count=2, sum=np.ones(16), sum_square=np.ones(16))
    with caplog.at_level(logging.WARNING):
        build(
            frontend="ofa",
            frontend_conf={"upstream": upstream_conf, "lam": 0.5},
            normalize="global_mvn",
            normalize_conf={"stats_file": str(tmp_path / "s.npz")},
            specaug="specaug",
            specaug_conf={"time_mask_width_range": [0, 4]},
        )
    first, second = _warnings(caplog)
    assert "utterance_mvn" in first and "time_mask" in second
