"""The upstream: laws of lengths, lambda and checkpoints."""

import re

import pytest
import torch
import yaml

from espnet_ofa import OFAUpstream, set_lam
from espnet_ofa.subsampling import LamPolicy, LamUnsetError
from espnet_ofa.upstream import UpstreamConfig
from espnet_ofa.upstream.upsampler import Upsampler

SMALL = {
    "extractor": "logmel",
    "extractor_conf": {"dim": 16, "mels": 20, "stem_layers": 1, "stem_kernel": 3},
    "dim": 24,
    "layers": 2,
    "heads": 4,
    "ff_dim": 32,
    "pos_kernel": 6,
    "pos_groups": 2,
}
CONV = {**SMALL, "extractor": "conv", "extractor_conf": {"dim": 16}}
SQUEEZE = {
    "compressor": "squeeze",
    "compressor_conf": {"factor": 3, "kernel": 6, "groups": 2},
    "pos_kernel": 0,
}
VARIANTS = [
    SMALL,
    {**SMALL, "norm_first": True},
    CONV,
    {**CONV, "compressor": "mean", "compressor_conf": {"factor": 2}},
    {**SMALL, "compressor": "none", "query_pool": 3, "key_pool": 2},
    {**SMALL, **SQUEEZE},
    {**SMALL, "merge": {"layers": [0, 1], "ratio": 0.3}},
    {**SMALL, "norm_first": True, "merge": {"layers": [0], "threshold": 0.4}},
]


def make(conf=SMALL, policy=None):
    torch.manual_seed(0)
    return OFAUpstream(UpstreamConfig.from_dict(conf), policy).eval()


@pytest.mark.parametrize("conf", VARIANTS)
@pytest.mark.parametrize("lam", [0.0, 0.7])
def test_an_utterance_encodes_the_same_alone_and_in_a_batch(conf, lam):
    upstream = make(conf)
    wave, lengths = torch.randn(3, 16000), torch.tensor([16000, 9999, 700])
    batch = upstream(wave, lengths, lam=lam)
    for row, n in enumerate(lengths.tolist()):
        alone = upstream(wave[row : row + 1, :n], lam=lam)
        u = int(alone.lengths)
        assert int(batch.lengths[row]) == u
        for mine, theirs in zip(alone.hidden_states, batch.hidden_states, strict=True):
            torch.testing.assert_close(theirs[row, :u], mine[0], atol=1e-4, rtol=1e-4)


def test_period_is_measured_from_true_lengths():
    upstream = make()
    out = upstream(torch.randn(2, 32000), torch.tensor([32000, 16000]), lam=1.0)
    frames = torch.tensor([99, 49])
    assert torch.equal(out.frame_lengths, frames)
    torch.testing.assert_close(out.period_ms, 20 * frames / out.lengths)
    assert 75 < out.period_ms[0] < 110  # a fresh predictor starts near 90 ms
    assert out.hidden_states[-1].shape == (2, int(out.lengths.max()), 24)
    assert len(out.hidden_states) == SMALL["layers"] + 1
    torch.testing.assert_close(out.durations.sum(1), frames.float())


def test_lambda_of_the_call_then_of_the_policy_then_an_error():
    upstream = make()
    wave = torch.randn(1, 8000)
    with pytest.raises(LamUnsetError):
        upstream(wave)
    set_lam(upstream, 1.0)
    assert upstream(wave).lengths < upstream(wave, lam=0.0).lengths
    random = make(policy=LamPolicy(None, "uniform"))
    with pytest.raises(LamUnsetError):  # trained with a draw, never decoded with one
        random(wave)


def test_lambda_has_a_gradient_end_to_end():
    upstream = make(policy=LamPolicy("adaptive", lam_conf={"init": 0.6})).train()
    out = upstream(torch.randn(2, 16000))
    out.hidden_states[-1].square().sum().backward()
    grad = upstream.policy.learnable.raw.grad
    assert grad is not None and grad.abs().item() > 0


@pytest.mark.parametrize("norm_first", [False, True])
def test_fewer_layers_are_a_prefix(norm_first):
    upstream = make({**SMALL, "norm_first": norm_first})
    wave = torch.randn(1, 8000)
    whole = upstream(wave, lam=0.3).hidden_states
    for layers in (0, 1, 2):
        part = upstream(wave, lam=0.3, num_layers=layers).hidden_states
        assert len(part) == layers + 1
        for mine, theirs in zip(part, whole, strict=False):
            assert torch.equal(mine, theirs)
    # With norm_first only the topmost of all layers is normalised.
    spread = [state.std(-1, correction=0) for state in whole]
    normalised = [bool((x - 1).abs().max() < 1e-2) for x in spread]
    assert normalised == ([False, False, True] if norm_first else [True] * 3)


@pytest.mark.parametrize("compressor", ["none", "mean", "conv", "cif"])
@pytest.mark.parametrize("lam", [0.0, 0.6])
def test_a_lone_utterance_may_be_padded(compressor, lam):
    upstream = make({**SMALL, "compressor": compressor})
    wave = torch.randn(1, 16000)
    padded = upstream(wave, torch.tensor([8000]), lam=lam)
    short = upstream(wave[:, :8000], lam=lam)
    u = int(short.lengths)
    assert int(padded.lengths) == u
    torch.testing.assert_close(
        padded.hidden_states[-1][:, :u], short.hidden_states[-1], atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("conf", [SMALL, CONV])
def test_half_precision_models_count_like_whole_ones(conf, dtype):
    wave, lengths = torch.randn(1, 16100), torch.tensor([16100])
    upstream = make(conf)
    wanted = upstream(wave, lengths, lam=0.0)
    found = upstream.to(dtype)(wave.to(dtype), lam=0.0)
    assert found.hidden_states[-1].dtype == dtype
    assert torch.equal(found.frame_lengths, wanted.frame_lengths)
    assert upstream(wave.to(dtype), lam=0.7).weights.dtype == torch.float32


def test_wrong_shapes_and_empty_utterances_are_named():
    upstream = make()
    with pytest.raises(ValueError, match="expected wave"):
        upstream(torch.randn(8000), torch.tensor([8000]), lam=0.0)
    with pytest.raises(ValueError, match="1"):
        upstream(torch.randn(2, 8000), torch.tensor([8000, 0]), lam=0.5)


def test_a_width_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match=r"^dim must be .* heads \(.* got 17$"):
        make({**SMALL, "dim": 17})


# -- checkpoints ----------------------------------------------------------------------


def test_a_saved_upstream_comes_back_bit_equal(tmp_path):
    upstream = make()
    upstream.save_pretrained(tmp_path / "up")
    assert sorted(p.name for p in (tmp_path / "up").iterdir()) == [
        "config.yaml",
        "model.safetensors",
    ]
    again = OFAUpstream.from_pretrained(tmp_path / "up")
    assert not again.training
    wave = torch.randn(1, 8000)
    for a, b in zip(
        upstream(wave, lam=0.5).hidden_states,
        again(wave, lam=0.5).hidden_states,
        strict=True,
    ):
        assert torch.equal(a, b)


def test_a_learned_lambda_stays_with_the_task(tmp_path):
    make(policy=LamPolicy("adaptive")).save_pretrained(tmp_path)
    again = OFAUpstream.from_pretrained(tmp_path, policy=LamPolicy("adaptive"))
    assert again.policy.learnable is not None
    assert OFAUpstream.from_pretrained(tmp_path).policy.learnable is None


def test_keys_that_do_not_fit_are_named(tmp_path):
    make().save_pretrained(tmp_path)
    conf = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for change, key in (
        ({"layers": 3}, "missing: transformer.layers.2"),
        ({"layers": 1}, "unexpected: transformer.layers.1"),
        ({"ff_dim": 40}, "wrong shape: transformer.layers.0.ff_in"),
    ):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**conf, **change}))
        with pytest.raises(ValueError, match=key):
            OFAUpstream.from_pretrained(tmp_path)


def test_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a hub id"):
        OFAUpstream.from_pretrained(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="exp/nothing: no such directory"):
        OFAUpstream.from_pretrained("exp/nothing", offline=True)
    with pytest.raises(FileNotFoundError, match=r"config\.yaml"):
        OFAUpstream.from_pretrained(tmp_path)
    make().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        OFAUpstream.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="weights"):
        OFAUpstream.from_pretrained(tmp_path)


def test_unknown_config_keys_are_named():
    with pytest.raises(ValueError, match="layer_count"):
        UpstreamConfig.from_dict({"layer_count": 3, 1: 2})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dim", "x", "expected int, found 'x'"),
        ("dim", 2.5, "expected int, found 2.5"),
        ("dim", True, "expected int, found True"),
        ("upsampler", 1, "expected bool, found 1"),
        ("dropout", "1e-1", "expected float, found '1e-1'"),
        ("merge", None, "expected dict, found nothing"),
        ("query_pool", "2", "expected int | list[int], found '2'"),
        ("query_pool", ["a"], "expected int | list[int], found ['a']"),
        ("condition", [1], "expected list[str], found [1]"),
    ],
)
def test_a_config_of_another_kind_is_named(tmp_path, name, value, message):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({name: value}))
    message = f"config.yaml: {name} in upstream config: {message}"
    with pytest.raises(ValueError, match=re.escape(message)):
        UpstreamConfig.from_yaml(path)


def test_a_whole_number_is_a_float_too():
    conf = {"dropout": 0, "query_pool": [1, 2], "condition": ("lam",)}
    assert UpstreamConfig.from_dict(conf).dropout == 0


@pytest.mark.parametrize(("factor", "frames"), [(4, 12), (4, 10), (2, 5), (1, 3)])
def test_the_frames_of_a_unit_are_its_first_slots(factor, frames):
    upsampler, units = Upsampler(8, slots=4), torch.randn(2, 3, 8)
    found = upsampler(units, factor, frames)
    assert found.shape == (2, frames, 8)
    linear = upsampler.linear
    for frame in range(frames):
        unit, slot = divmod(frame, factor)
        rows = slice(8 * slot, 8 * (slot + 1))
        y = units[:, unit] @ linear.weight[rows].T + linear.bias[rows]
        gelu = y * (1 + torch.erf(y / 2**0.5)) / 2
        torch.testing.assert_close(found[:, frame], gelu)
