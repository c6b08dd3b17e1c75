"""An encoder call waits for the host once, and with ``num_units`` never."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from espnet_ofa.subsampling import LamPolicy, build_compressor
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig
from espnet_ofa.upstream.merging import AdjacentMerging

SAMPLES, FRAMES = [8000, 5000], [24, 15]
LOGMEL = {"extractor_conf": {"dim": 12, "mels": 20, "stem_layers": 1}}
CONV = {"extractor": "conv", "extractor_conf": {"dim": 8}}


ALL = ("cif", "mean", "conv", "none", "squeeze")
KINDS = {  # what else must not wait
    "squeeze": {"compressor_conf": {"kernel": 3, "groups": 2}, "pos_kernel": 0},
    "none": {"merge": {"layers": [0], "ratio": 0.3}},
    "mean": {"query_pool": 2, "key_pool": 3},
}


def make(conf=LOGMEL, compressor="cif", policy=None):
    torch.manual_seed(0)
    shape = {"dim": 16, "layers": 1, "heads": 2, "ff_dim": 16, "pos_kernel": 4}
    shape |= {"extractor": "logmel", "pos_groups": 2, "compressor": compressor}
    shape |= {"dropout": 0.0, "attention_dropout": 0.0}
    return OFAUpstream(UpstreamConfig(**{**shape, **conf}), policy)


def audio():
    return torch.randn(2, max(SAMPLES)), torch.tensor(SAMPLES)


@pytest.mark.parametrize("conf", [LOGMEL, CONV])
@pytest.mark.parametrize(
    ("compressor", "num_units", "wanted"),
    [
        *((kind, None, ["tolist"]) for kind in ALL),
        *((kind, 9, []) for kind in ALL),
    ],
)
def test_waits_of_a_training_step(waits, conf, compressor, num_units, wanted):
    conf = {**KINDS.get(compressor, {}), **conf}
    upstream = make(conf, compressor, LamPolicy(0.5, "uniform"))
    wave, lengths = audio()
    waits.clear()
    out = upstream(wave, lengths, num_units=num_units)
    out.hidden_states[-1].square().sum().backward()
    assert waits == wanted


def test_the_compressor_knows_all_units_from_its_one_wait(waits):
    compressor = build_compressor("cif", 6)
    frames, lengths = torch.randn(2, max(FRAMES), 6), torch.tensor(FRAMES)
    waits.clear()
    out = compressor(frames, lengths, 0.6)
    assert waits == ["tolist"]
    assert out.total_units == int(out.lengths.sum())
    assert compressor(frames, lengths, 0.6, 9).total_units is None


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.4])
def test_a_bound_changes_nothing_but_padding(training, lam):
    wave, lengths = audio()
    want = make().train(training)(wave, lengths, lam)
    got = make().train(training)(wave, lengths, lam, num_units=30)
    assert torch.equal(got.lengths, want.lengths) and not got.merged.any()
    most = int(want.lengths.max())
    assert got.durations.shape == (2, 30) and (got.durations[:, most:] == 0).all()
    torch.testing.assert_close(got.durations[:, :most], want.durations)
    for row, n in enumerate(want.lengths.tolist()):
        torch.testing.assert_close(
            got.hidden_states[-1][row, :n],
            want.hidden_states[-1][row, :n],
            atol=1e-5,
            rtol=1e-4,
        )


@pytest.mark.parametrize("lam", [0.0, 0.5])
def test_units_beyond_the_bound_are_merged_and_flagged(lam):
    wave, lengths = audio()
    upstream = make().eval()
    most = int(upstream(wave, lengths, lam).lengths.max())
    out = upstream(wave, lengths, lam, num_units=most - 1)
    assert out.merged.tolist() == [True, False]
    assert int(out.lengths.max()) == out.durations.shape[1] == most - 1
    torch.testing.assert_close(out.durations.sum(1), torch.tensor(FRAMES).float())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("conf", [LOGMEL, CONV])
@pytest.mark.parametrize("compressor", ALL)
@pytest.mark.parametrize("lam", [0.0, 0.6, "adaptive"])
def test_no_synchronisation_with_num_units(conf, compressor, lam):
    conf = {**KINDS.get(compressor, {}), **conf}
    upstream = make(conf, compressor, LamPolicy(lam)).cuda()
    wave, lengths = (x.cuda() for x in audio())

    def step():
        out = upstream(wave, lengths, num_units=9)
        out.hidden_states[-1].square().sum().backward()

    step()  # compile first
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# FakeTensorMode holds no data: whatever asks for some raises.


@pytest.mark.parametrize("lam", ["number", "tensor", "rule"])
def test_the_compressor_needs_no_data_with_num_units(lam):
    with FakeTensorMode():
        compressor = build_compressor("cif", 6)
        frames = torch.randn(2, max(FRAMES), 6, requires_grad=True)
        knob = {
            "number": 0.6,
            "tensor": torch.rand(2, requires_grad=True),
            "rule": lambda alpha, lengths: alpha.sum(1) / lengths,
        }[lam]
        out = compressor(frames, torch.tensor(FRAMES), knob, num_units=9)
        assert out.units.shape == (2, 9, 6) and out.durations.shape == (2, 9)
        out.units.sum().backward()
        assert frames.grad is not None
        assert all(p.grad is not None for p in compressor.parameters())


def fake_step(upstream, num_units):
    """Forward and backward on fake weights and audio."""
    mode = FakeTensorMode()
    weights = {k: mode.from_tensor(v) for k, v in upstream.named_parameters()}
    buffers = {k: mode.from_tensor(v) for k, v in upstream.named_buffers()}
    with mode:
        options = {"num_units": num_units}
        state: dict[str, torch.Tensor] = {**weights, **buffers}
        out = functional_call(upstream, state, audio(), options)
        out.hidden_states[-1].sum().backward()
    return out, [k for k, v in weights.items() if v.grad is None]


@pytest.mark.parametrize("conf", [LOGMEL, CONV])
@pytest.mark.parametrize("lam", [0.0, 0.6, "adaptive"])
def test_the_upstream_needs_no_data_with_num_units(conf, lam):
    out, missing = fake_step(make(conf, policy=LamPolicy(lam)), 9)
    assert [x.shape for x in out.hidden_states] == [(2, 9, 16)] * 2
    assert out.period_ms.shape == (2,) and missing == []


@pytest.mark.parametrize("conf", [LOGMEL, CONV])
def test_nor_does_inference(conf):
    """There lengths are read where it is for nothing: on a CPU, but of real data."""
    with FakeTensorMode(), torch.no_grad():
        out = make(conf).eval()(*audio(), 0.6, num_units=9)
    assert out.hidden_states[-1].shape == (2, 9, 16)


@pytest.mark.parametrize("compressor", KINDS)
def test_neither_do_squeeze_pooling_and_merging(compressor):
    conf = {**LOGMEL, **KINDS[compressor]}
    out, missing = fake_step(make(conf, compressor), 9)
    assert out.period_ms.shape == (2,) and missing == []


def test_merging_by_threshold_needs_data_only_to_cut_padding_off():
    conf = {**LOGMEL, "merge": {"layers": [0], "threshold": 0.5}}
    out, _ = fake_step(make(conf, "none"), 30)
    assert out.hidden_states[-1].shape == (2, 24, 16)  # nothing is cut
    merging = AdjacentMerging(threshold=0.5)
    with FakeTensorMode():
        plan = (torch.randn(2, 9, 4), torch.tensor([9, 5]), torch.ones(2, 9))
        assert merging(*plan, trim=False).durations.shape == (2, 9)
        with pytest.raises(Exception, match="_local_scalar_dense"):
            merging(*plan)


def test_the_fake_tensor_test_can_fail():
    with pytest.raises(Exception, match="_local_scalar_dense"):
        fake_step(make(policy=LamPolicy(0.6)), None)
