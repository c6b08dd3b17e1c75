"""Extractors: agreed frame counts, padding invariance, equality with HuBERT's own."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from espnet_ofa.upstream import conv_inference
from espnet_ofa.upstream.extractor import build_extractor, frame_lengths

PRUNED = [[6, 10, 5], [5, 3, 2], [7, 3, 2], [4, 3, 2], [8, 3, 2], [3, 2, 2], [9, 2, 2]]
CASES = [
    ("logmel", {"dim": 12, "mels": 20}),
    ("logmel", {"dim": 12, "mels": 20, "stem_layers": 2, "stem_kernel": 3}),
    ("conv", {"dim": 8}),
    ("conv", {"dim": 8, "norm": "layer", "bias": True}),
    ("conv", {"layers": PRUNED}),
    ("slim", {}),
    ("slim", {"norm": "layer"}),
]


def make(kind, conf):
    torch.manual_seed(0)
    return build_extractor(kind, **conf).eval()


@pytest.mark.parametrize(("kind", "conf"), CASES)
@pytest.mark.parametrize("samples", [1, 399, 400, 719, 720, 5000, 5119, 5120])
def test_frame_count_is_the_same_everywhere(kind, conf, samples):
    frames, lengths = make(kind, conf)(torch.randn(1, samples), torch.tensor([samples]))
    assert frames.shape[:2] == (1, int(lengths))
    assert int(lengths) == max((samples - 400) // 320 + 1, 1)
    assert frame_lengths(samples) == int(lengths)


def test_no_samples_no_frames():
    assert frame_lengths(torch.tensor([0, 1])).tolist() == [0, 1]
    assert (frame_lengths(0), frame_lengths(1)) == (0, 1)


@pytest.mark.parametrize(("kind", "conf"), CASES)
def test_padding_never_changes_a_frame(kind, conf):
    extractor = make(kind, conf)
    lengths = torch.tensor([9000, 3333, 500])
    wave = torch.randn(3, 9000)
    batch, batch_lengths = extractor(wave, lengths)
    for row, n in enumerate(lengths.tolist()):
        alone, alone_lengths = extractor(
            wave[row : row + 1, :n], lengths[row : row + 1]
        )
        s = int(alone_lengths)
        assert int(batch_lengths[row]) == s
        torch.testing.assert_close(batch[row, :s], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "conf"), CASES[2:])
@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_without_gradients_the_convolutions_compute_the_same(
    kind, conf, chunk, monkeypatch
):
    """Norm folded, chunk by chunk: what padding holds and how long a chunk is, is one.

    Loud, with an offset, and silent: the folded norm must survive all of them.
    """
    monkeypatch.setattr(conv_inference, "CHUNK", chunk)
    extractor = make(kind, conf)
    for norm in extractor.norms:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    lengths = torch.tensor([9000, 3333, 399, 5000])
    wave = torch.randn(4, 9000) * torch.tensor([[1.0], [1e-3], [30.0], [0.0]])
    wave[0] += 5
    want, counts = extractor(wave, lengths)
    with torch.no_grad():
        got, got_counts = extractor(wave, lengths)
    assert got.shape == want.shape and torch.equal(got_counts, counts)
    for row, n in enumerate(counts.tolist()):
        torch.testing.assert_close(got[row, :n], want[row, :n], atol=1e-4, rtol=1e-4)
        assert (got[row, n:] == 0).all()


def test_conv_extractor_is_huberts():
    from torchaudio.models import wav2vec2_model

    theirs = wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=None,
        extractor_conv_bias=False,
        encoder_embed_dim=16,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=4,
        encoder_pos_conv_groups=2,
        encoder_num_layers=1,
        encoder_num_heads=2,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=16,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    ).feature_extractor.eval()
    ours = build_extractor("conv").eval()
    with torch.no_grad():
        for mine, block in zip(ours.convs, theirs.conv_layers, strict=True):
            mine.weight.copy_(block.conv.weight)
        norm = theirs.conv_layers[0].layer_norm
        ours.norms[0].weight.copy_(norm.weight.normal_())
        ours.norms[0].bias.copy_(norm.bias.normal_())
        wave, lengths = 0.1 * torch.randn(2, 8000), torch.tensor([8000, 8000])
        wanted, wanted_lengths = theirs(wave, lengths)
        found, found_lengths = ours(wave, lengths)
    assert torch.equal(found_lengths, wanted_lengths)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mels", [20, 40, 80])
def test_mel_filters_are_torchaudios(mels):
    from torchaudio.functional import melscale_fbanks

    ours = make("logmel", {"dim": 4, "mels": mels}).fbanks
    assert torch.equal(ours, melscale_fbanks(257, 20.0, 8000.0, mels, 16000))


def test_an_upstream_needs_no_torchaudio():
    """README's example without ESPnet, whose extra alone installs torchaudio."""
    code = (
        "import sys; sys.modules['torchaudio'] = None; "
        "from espnet_ofa import OFAUpstream; "
        "from espnet_ofa.upstream import UpstreamConfig; "
        "OFAUpstream(UpstreamConfig(extractor='logmel', layers=1))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_log_mel_is_normalised_over_true_frames():
    features, lengths = make("logmel", {"dim": 4}).log_mel(
        torch.randn(2, 16000), torch.tensor([16000, 8000])
    )
    for row, n in enumerate(lengths.tolist()):
        x = features[row, :n]
        torch.testing.assert_close(x.mean(0), torch.zeros(160), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            x.std(0, unbiased=False), torch.ones(160), atol=1e-2, rtol=0
        )
        assert torch.all(features[row, n:] == 0)


def test_loudness_does_not_matter_to_log_mel():
    wave, lengths = torch.randn(1, 4000), torch.tensor([4000])
    extractor = make("logmel", {"dim": 4})
    loud, _ = extractor.log_mel(wave, lengths)
    soft, _ = extractor.log_mel(0.05 * wave, lengths)
    torch.testing.assert_close(loud, soft, atol=1e-3, rtol=1e-3)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="conv, slim, logmel"):
        build_extractor("fbank")
    with pytest.raises(ValueError, match="group or layer"):
        build_extractor("conv", norm="batch")
    with pytest.raises(ValueError, match="400 samples every 320; got 400 every 640"):
        build_extractor("conv", layers=[*PRUNED, [4, 1, 2]])
    with pytest.raises(ValueError, match="odd"):
        build_extractor("logmel", stem_layers=1, stem_kernel=4)
