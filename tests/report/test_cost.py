"""MACs: counted and by hand, each checking the other."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from espnet_ofa.report.cost import (
    conv_macs,
    count_macs,
    count_parameters,
    fft_macs,
    linear_macs,
    measure_macs,
    upstream_macs,
)
from espnet_ofa.report.meter import EncoderMeter
from espnet_ofa.subsampling import build_compressor, set_squeeze
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig

STEPS, DIM, HEADS = 30, 16, 4


def small_upstream(extractor: str, compressor: str = "cif", **conf) -> OFAUpstream:
    torch.manual_seed(0)
    config = UpstreamConfig(
        extractor=extractor,
        extractor_conf=conf if extractor == "slim" else {"dim": 24, **conf},
        compressor=compressor,
        dim=DIM,
        layers=2,
        heads=HEADS,
        ff_dim=40,
        pos_kernel=6,
        pos_groups=2,
    )
    return OFAUpstream(config).eval()


class Encode(nn.Module):
    """An upstream with the method that ESPnet's models have."""

    def __init__(self, upstream: OFAUpstream, lam: float) -> None:
        super().__init__()
        self.upstream, self.lam = upstream, lam

    def encode(self, speech, speech_lengths):
        out = self.upstream(speech, speech_lengths, lam=self.lam)
        return out.hidden_states[-1], out.lengths


def test_attention_counts_though_its_fast_paths_do_not():
    x = torch.randn(1, STEPS, DIM)
    heads = x.view(1, STEPS, HEADS, -1).transpose(1, 2)

    def sdpa():
        return F.scaled_dot_product_attention(heads, heads, heads)

    with FlopCounterMode(display=False) as plain:
        sdpa()
    assert plain.get_total_flops() == 0  # the trap; if torch mends it, simplify
    products = 2 * STEPS**2 * DIM
    assert count_macs(nn.Identity(), sdpa) == products
    attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True).eval()
    macs = count_macs(attention, lambda: attention(x, x, x, need_weights=False))
    assert macs == products + 4 * STEPS * DIM**2
    assert torch.backends.mha.get_fastpath_enabled()  # as it was


@pytest.mark.parametrize("groups", [1, 4])
def test_layers_by_hand(groups):
    conv = nn.Conv1d(DIM, 8, 5, stride=2, groups=groups)
    x = torch.randn(1, DIM, STEPS)
    steps = conv(x).shape[2]
    assert count_macs(conv, lambda: conv(x)) == conv_macs(conv, steps)
    assert conv_macs(conv, steps) == steps * conv.weight.numel()
    linear = nn.Linear(DIM, 7)
    macs = count_macs(linear, lambda: linear(x.transpose(1, 2)))
    assert macs == linear_macs(linear, STEPS) == STEPS * DIM * 7


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers(kind):
    rnn = kind(DIM, 8, 2, batch_first=True, bidirectional=True)
    x = torch.randn(1, STEPS, DIM)
    weights = sum(p.numel() for n, p in rnn.named_parameters() if "weight" in n)
    assert count_macs(rnn, lambda: rnn(x)) == STEPS * weights
    packed = nn.utils.rnn.pack_padded_sequence(x, [STEPS], batch_first=True)
    assert count_macs(rnn, lambda: rnn(packed)) == STEPS * weights


def test_fourier_transform():
    window = torch.hann_window(512)
    wave = torch.randn(1, 16000)

    def stft():
        return torch.stft(wave, 512, 160, window=window, return_complex=True)

    assert count_macs(nn.Identity(), stft) == pytest.approx(101 * fft_macs(512))


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("extractor", "conf"),
    [("conv", {}), ("slim", {}), ("logmel", {"mels": 20, "stem_layers": 1})],
)
def test_upstream_formula_equals_counter(extractor, conf, lam):
    model = Encode(small_upstream(extractor, **conf), lam)
    wave = torch.randn(12345)
    with EncoderMeter(model) as meter:
        macs, seconds = measure_macs(model, wave)
    parts = upstream_macs(model.upstream, len(wave), meter.units, model.lam)
    assert macs == pytest.approx(sum(parts.values()), rel=1e-3)
    assert seconds == pytest.approx(12345 / 16000)
    if lam > 0:
        more = upstream_macs(model.upstream, len(wave), meter.units + 1, lam)
        assert more["transformer"] > parts["transformer"]
        assert more["extractor"] == parts["extractor"]


@pytest.mark.parametrize("compressor", ["none", "mean", "conv"])
def test_other_compressors(compressor):
    model = Encode(small_upstream("logmel", compressor), 0.0)
    wave = torch.randn(8000)
    with EncoderMeter(model) as meter:
        macs, _ = measure_macs(model, wave)
    parts = upstream_macs(model.upstream, len(wave), meter.units, model.lam)
    assert macs == pytest.approx(sum(parts.values()), rel=1e-3)


SQUEEZE = {"compressor": "squeeze", "pos_kernel": 0}
RIVALS = [
    {"compressor": "mean", "condition": ["durations"]},
    {**SQUEEZE, "compressor_conf": {"factor": 3, "kernel": 5, "groups": 2}},
    {
        **SQUEEZE,
        "compressor_conf": {"factor": [2, 4], "kernel": 6, "groups": 2},
        "query_pool": [1, 2],
        "key_pool": [1, 3],
    },
    {"compressor": "none", "query_pool": 2, "key_pool": 3},
    {"compressor": "none", "merge": {"layers": [0, 1], "ratio": 0.3}},
    {"compressor": "mean", "merge": {"layers": [0], "threshold": 0.2}},
]


@pytest.mark.parametrize("conf", RIVALS)
def test_squeeze_pooling_and_merging(conf):
    upstream = OFAUpstream(replace(small_upstream("logmel").config, **conf)).eval()
    if upstream.squeeze_policy is not None:
        set_squeeze(upstream, "4,2,3")
    wave = torch.randn(16000)
    macs, _ = measure_macs(Encode(upstream, 0.0), wave)
    with torch.no_grad():
        frames, lengths = upstream.extract(wave[None], torch.tensor([len(wave)]))
        out = upstream.compress(frames, lengths)
        states = upstream.encode_units(out).states
    units = int(out.lengths)
    kept = [states[i + 1].shape[1] for i in upstream.transformer.merging_layers]
    parts = upstream_macs(upstream, len(wave), units, 0.0, kept)
    assert macs == pytest.approx(sum(parts.values()), rel=1e-6)
    threshold = "threshold" in conf.get("merge", {})
    if threshold:
        with pytest.raises(ValueError, match="units after each"):
            upstream_macs(upstream, len(wave), units, 0.0)
    else:
        assert upstream_macs(upstream, len(wave), units, 0.0) == parts
    plain = {"query_pool": 1, "key_pool": 1, "merge": {}}
    costly = OFAUpstream(replace(upstream.config, **plain))
    if costly.squeeze_policy is not None:
        set_squeeze(costly, 4)
    dear = upstream_macs(costly.eval(), len(wave), units, 0.0)
    cheaper = upstream.config != costly.config
    assert (parts["transformer"] < dear["transformer"]) == cheaper


def test_parameters_count_once():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    assert count_parameters(model) == {"a": 12, "b": 3}


def test_meter_counts_and_leaves_no_trace():
    model = Encode(small_upstream("logmel"), 1.0)
    speech = torch.randn(2, 16000)
    lengths = torch.tensor([16000, 9000])
    with torch.no_grad(), EncoderMeter(model) as meter:
        _, units = model.encode(speech, lengths)
        model.encode(speech[:1], lengths[:1])
    assert meter.units == int(units.sum() + units[0])
    # 49, 27 and again 49 frames of 20 ms: (samples - 400) // 320 + 1
    assert meter.frames == 125
    assert meter.frame_seconds == pytest.approx(2.5)
    assert meter.seconds > 0
    assert "encode" not in vars(model)
    assert not model.upstream.compressor._forward_hooks


def test_frames_count_before_a_stem():
    class Stemmed(nn.Module):
        frame_ms = 8.0

        def __init__(self):
            super().__init__()
            self.stem = Halve()
            self.compressor = build_compressor("none", 3)

        def encode(self, speech, speech_lengths):
            out = self.compressor(*self.stem(speech, speech_lengths))
            return out.units, out.lengths

    class Halve(nn.Linear):
        def __init__(self):
            super().__init__(3, 3)

        def forward(self, x, lengths):
            return super().forward(x[:, ::2]), (lengths + 1) // 2

    model = Stemmed()
    with EncoderMeter(model) as meter:
        model.encode(torch.randn(1, 10, 3), torch.tensor([10]))
    assert (meter.units, meter.frames) == (5, 10)
    assert meter.frame_seconds == pytest.approx(0.08)


def test_without_compression_there_are_no_frames():
    class Plain(nn.Linear):
        def encode(self, speech, speech_lengths):
            return self(speech), speech_lengths

    model = Plain(4, 4)
    with EncoderMeter(model) as meter:
        model.encode(torch.randn(1, 3, 4), torch.tensor([3]))
    assert (meter.units, meter.frames, meter.frame_seconds) == (3, None, None)


def test_frames_count_at_the_first_compressor_of_each_call():
    class Two(nn.Linear):
        """Frames halved, then units halved again."""

        def __init__(self):
            super().__init__(3, 3)
            self.first = build_compressor("mean", 3, factor=2)
            self.last = build_compressor("mean", 3, factor=2)

        def encode(self, speech, speech_lengths):
            out = self.first(speech, speech_lengths)
            out = self.last(out.units, out.lengths)
            return out.units, out.lengths

    model = Two()
    with EncoderMeter(model) as meter:
        for frames in (8, 12):
            model.encode(torch.randn(1, frames, 3), torch.tensor([frames]))
    assert (meter.units, meter.frames) == (2 + 3, 8 + 12)
    assert meter.frame_seconds == pytest.approx(0.4)
    assert meter.last_lengths is not None and meter.last_lengths.tolist() == [3]
