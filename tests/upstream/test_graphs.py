"""Buckets and graphs change no result, wait once, and keep to their memory.

A CPU has no graphs: here a recorded function is one that runs again on the same inputs
and overwrites the same outputs. What only a GPU can show is at the end.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from espnet_ofa.subsampling import compress_weights
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig, attention, extractor
from espnet_ofa.upstream.buckets import LEAST, MOST_FRAMES, Bucketed, bucket
from espnet_ofa.upstream.graphs import Graph, Graphs

SHAPE = {"dim": 32, "layers": 2, "heads": 4, "ff_dim": 64}
POSITIONS = {"pos_kernel": 8, "pos_groups": 4}
LOGMEL = {"extractor_conf": {"dim": 16, "mels": 20, "stem_layers": 1}}
CONV = {"extractor": "conv", "extractor_conf": {"dim": 16}, "normalize_wave": True}
KINDS = {
    "logmel": {},
    "conv": CONV,
    "pooled": {"query_pool": 2, "key_pool": 3},
    "chunked": {"chunk": {"ms": 320, "left": 1}},
    "told": {"condition": ["durations", "lam"]},
}


def make(kind="logmel"):
    torch.manual_seed(0)
    conf = {**SHAPE, **POSITIONS, "extractor": "logmel", **LOGMEL, **KINDS[kind]}
    upstream = OFAUpstream(UpstreamConfig(**conf)).eval()
    if upstream.condition is not None:  # a new one has no effect
        torch.nn.init.normal_(upstream.condition.out.weight, std=0.1)
    return upstream.requires_grad_(False)


def record(function, inputs):
    outputs = function(*inputs)

    def replay():
        for old, new in zip(outputs, function(*inputs), strict=True):
            old.copy_(new)

    return Graph(inputs, outputs, replay)


def with_graphs(upstream, **limits):
    upstream.bucketed = Bucketed(upstream, Graphs(record, **limits))
    return upstream


def graphs_of(upstream):
    run = upstream.bucketed and upstream.bucketed.run
    assert isinstance(run, Graphs)
    return run


def audio(*samples):
    torch.manual_seed(sum(samples))
    return torch.randn(len(samples), max(samples)), torch.tensor(samples)


BATCHES = [(16000,), (9000, 16319, 300), (5000, 47999), (250,)]


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Take the ways of devices whose tensors cannot be read for nothing."""
    for module in (attention, extractor):
        monkeypatch.setattr(module, "reads_for_free", lambda x: False)


def assert_same(got, want):
    assert torch.equal(got.lengths, want.lengths)
    assert torch.equal(got.frame_lengths, want.frame_lengths)
    assert got.durations.shape == want.durations.shape
    close = torch.testing.assert_close
    close(got.durations, want.durations, atol=1e-4, rtol=0)
    if want.alpha is not None:
        close(got.alpha, want.alpha, atol=1e-5, rtol=0)
        close(got.weights, want.weights, atol=1e-5, rtol=0)
    assert len(got.hidden_states) == len(want.hidden_states)
    for a, b in zip(got.hidden_states, want.hidden_states, strict=True):
        assert a.shape == b.shape
        for row, n in enumerate(want.lengths.tolist()):
            close(a[row, :n], b[row, :n], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", BATCHES)
def test_a_bucket_changes_nothing(as_on_a_gpu, kind, samples):
    upstream, bucketed = make(kind), with_graphs(make(kind))
    wave, lengths = audio(*samples)
    each = torch.linspace(0.3, 1.2, len(samples))
    for lam in (0.0, 0.6, 1.0, 1.4, torch.tensor(0.37), each):
        want = upstream(wave, lengths, lam)
        assert_same(bucketed(wave, lengths, lam), want)
        assert_same(bucketed(wave, lengths, lam), want)  # now from the graph
    first = bucketed(wave, lengths, 0.6, num_layers=1)
    assert_same(first, upstream(wave, lengths, 0.6, num_layers=1))


def test_nor_where_lengths_are_read_for_nothing():
    for samples in BATCHES:
        got = with_graphs(make("conv"))(*audio(*samples), 0.6)
        assert_same(got, make("conv")(*audio(*samples), 0.6))


def test_numbers_and_tensors_weigh_alike(as_on_a_gpu):
    """To the last bit: a fire must not depend on who rounds lambda."""
    bucketed = with_graphs(make())
    for lam in (0.1, 0.3, 0.6, 0.9, 1.1, 1.7):
        got = bucketed(*audio(16000), lam)
        assert torch.equal(got.weights, compress_weights(got.alpha, lam))


def test_one_pair_of_graphs_serves_lambdas_and_lengths():
    bucketed = with_graphs(make())
    graphs = graphs_of(bucketed)
    for lam in (0.90, 0.95, torch.tensor([1.0])):
        for samples in (13000, 14000, 15500):  # 40 to 48 frames
            bucketed(*audio(samples), lam)
    assert len(graphs.kept) == 2
    bucketed(*audio(15000), 0.0)  # other buckets of units
    assert len(graphs.kept) == 3
    bucketed(*audio(15000, 9000), 0.9)
    assert len(graphs.kept) == 5


def test_results_are_the_callers():
    bucketed = with_graphs(make())
    with torch.inference_mode():
        kept = bucketed(*audio(16000), 0.9)
    copies = [x.clone() for x in (*kept.hidden_states, *kept[1:])]
    bucketed(audio(15000)[0], torch.tensor([15000]), 0.95)
    for a, b in zip((*kept.hidden_states, *kept[1:]), copies, strict=True):
        assert torch.equal(a, b)


def test_one_wait_and_none_with_num_units(as_on_a_gpu, waits):
    bucketed = with_graphs(make())
    wave, lengths = audio(9000, 16000)
    for _ in range(2):
        waits.clear()
        bucketed(wave, lengths, 0.6)
        assert waits == ["tolist"]
        waits.clear()
        out = bucketed(wave, lengths, 0.6, num_units=20)
        assert waits == [] and out.durations.shape == (2, 20)
    want = make()(wave, lengths, 0.6, num_units=20)
    assert_same(out, want)
    assert torch.equal(out.merged, want.merged) and want.merged.any()


@pytest.mark.parametrize(
    "kind", sorted(KINDS.keys() - {"told"})
)  # cannot be built of fakes
def test_nothing_that_is_recorded_needs_data(kind):
    """FakeTensorMode holds none: whatever asks for some raises."""
    with FakeTensorMode():
        upstream = make(kind)
        upstream.bucketed = Bucketed(upstream, lambda f, *x, **k: f(*x, **k))
        wave, lengths = torch.randn(2, 16000), torch.tensor([16000, 9000])
        out = upstream(wave, lengths, 0.6, num_units=20)
        assert out.hidden_states[-1].shape == (2, 20, 32)


def test_the_least_recently_used_is_dropped():
    bucketed = with_graphs(make(), most_graphs=4)
    kept = graphs_of(bucketed).kept
    short, longer, longest = audio(8000), audio(16000), audio(32000)
    bucketed(*short, 0.9)
    bucketed(*longer, 0.9)
    bucketed(*short, 0.9)
    before = list(kept)
    bucketed(*longest, 0.9)
    assert len(kept) == 4 and list(kept)[:2] == before[2:]
    assert_same(bucketed(*longer, 0.9), make()(*longer, 0.9))


def test_memory_is_bounded():
    bucketed = with_graphs(make(), most_bytes=1)
    for samples in (8000, 16000, 32000):
        assert_same(bucketed(*audio(samples), 0.9), make()(*audio(samples), 0.9))
        assert len(graphs_of(bucketed).kept) == 1


def test_what_does_not_fit_runs_without():
    bucketed = with_graphs(make())
    wave = torch.zeros(1, (MOST_FRAMES + 2) * 320)
    buckets = bucketed.bucketed
    assert buckets is not None and not buckets.fits(wave, torch.tensor([1]), 0.9)
    rule = lambda alpha, lengths: torch.tensor(0.5)  # noqa: E731
    assert_same(bucketed(*audio(9000), rule), make()(*audio(9000), 0.5))
    with pytest.raises(ValueError, match=r"expected wave \(B, samples\)"):
        bucketed(torch.zeros(9000), torch.tensor([9000]), 0.5)
    wave = audio(9000)[0].requires_grad_()
    bucketed(wave, torch.tensor([9000]), 0.5).hidden_states[-1].sum().backward()
    assert wave.grad is not None
    assert not graphs_of(bucketed).kept


def test_bad_input_is_named():
    bucketed = with_graphs(make())
    wave, lengths = audio(9000, 16000)
    with pytest.raises(ValueError, match="row 0 is empty"):
        bucketed(wave, torch.tensor([0, 16000]), 0.5)
    with pytest.raises(ValueError, match=r"lambda must lie in \[0, 2\]"):
        bucketed(wave, lengths, 2.5)
    with pytest.raises(RuntimeError, match="lambda is not set"):
        bucketed(wave, lengths)
    with pytest.raises(ValueError, match="row 1, frame 0: weight nan"):
        bucketed(wave, lengths, torch.tensor([0.5, torch.nan]))


def test_buckets():
    sizes = range(1, MOST_FRAMES + 1)
    found = [bucket(size) for size in sizes]
    assert found == sorted(found) and len(set(found)) <= 48
    for size, one in zip(sizes, found, strict=True):
        assert one % LEAST == 0 and size <= one < max(size + LEAST, 1.25 * size + 1)


@pytest.mark.parametrize(
    ("conf", "options", "message"),
    [
        ({}, {"mode": "graphs"}, "graphs is for CUDA devices, not cpu; take eager"),
        ({}, {"mode": "fast"}, "mode must be one of eager, graphs; got 'fast'"),
    ],
)
def test_modes_are_checked(conf, options, message):
    with pytest.raises(ValueError, match=message):
        make().optimize("cpu", **options)


@pytest.mark.parametrize(
    "conf",
    [
        {"compressor": "mean"},
        {"merge": {"layers": [0], "ratio": 0.3}},
        {"key_pool": [1, 2]},
    ],
)
def test_what_graphs_are_not_for_is_named(conf):
    shape = {**SHAPE, **POSITIONS, "extractor": "logmel", **LOGMEL}
    upstream = OFAUpstream(UpstreamConfig(**{**shape, **conf}))
    with pytest.raises(ValueError, match="graphs needs compressor: cif, no merge"):
        with_graphs(upstream)


needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device"
)


@needs_cuda
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-4), ("bf16", 3e-2)])
def test_graphs_equal_eager(kind, dtype, tolerance):
    eager = make(kind).optimize("cuda", dtype)
    graphs = make(kind).optimize("cuda", dtype, mode="graphs")
    for _ in range(2):  # recorded, then replayed
        for samples in BATCHES:
            wave, lengths = (x.cuda() for x in audio(*samples))
            for lam in (0.0, 0.6, 1.0):
                want, got = (up(wave, lengths, lam) for up in (eager, graphs))
                assert got.lengths.tolist() == want.lengths.tolist()
                for row, n in enumerate(want.lengths.tolist()):
                    a, b = (x.hidden_states[-1][row, :n].float() for x in (got, want))
                    assert (a - b).norm() <= tolerance * b.norm()


@needs_cuda
def test_a_replay_waits_once(recwarn):
    graphs = make().optimize("cuda", "bf16", mode="graphs")
    wave, lengths = (x.cuda() for x in audio(9000, 16000))
    graphs(wave, lengths, 0.6)
    graphs(wave, lengths, 0.6, num_units=30)
    recwarn.clear()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        graphs(wave, lengths, 0.7)
        assert sum("synchroniz" in str(w.message) for w in recwarn) == 1
        torch.cuda.set_sync_debug_mode("error")
        graphs(wave, lengths, 0.7, num_units=30)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
def test_memory_of_many_graphs_stays_bounded():
    graphs = make().optimize("cuda", "bf16", mode="graphs")
    graphs_of(graphs).most_graphs = 6
    peaks = []
    for _ in range(3):
        for samples in range(8000, 160000, 16000):
            wave, lengths = (x.cuda() for x in audio(samples))
            graphs(wave, lengths, 0.6)
        torch.cuda.synchronize()
        peaks.append(torch.cuda.memory_reserved())
    assert peaks[2] <= 1.1 * peaks[0]
