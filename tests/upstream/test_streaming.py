"""A stream gives what the upstream makes of the whole recording, and soon enough."""

import random
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import espnet_ofa
from espnet_ofa.cif import StreamingCIF, integrate_and_fire
from espnet_ofa.pretrain.model import MaskedPredictionModel
from espnet_ofa.subsampling.base import CompressorOutput
from espnet_ofa.subsampling.chunks import Chunk, chunks_of_units
from espnet_ofa.subsampling.compressor import CIFCompressor
from espnet_ofa.subsampling.policy import LamPolicy, LamUnsetError
from espnet_ofa.subsampling.rate import compress_weights
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig
from espnet_ofa.upstream.streaming import StreamingUpstream

LOGMEL = {"extractor_conf": {"dim": 16, "mels": 20, "stem_layers": 2}}
CONV = {"extractor": "conv", "extractor_conf": {"dim": 16, "norm": "layer"}}
FIRST = {**LOGMEL, "norm_first": True, "chunk": {"ms": 160, "left": 0}}
CONFIGS = {"logmel": LOGMEL, "conv": CONV, "norm first, none before": FIRST}
STEP = 8 * 320  # samples of a chunk


def make(policy=None, **conf):
    """An upstream whose alpha varies as if it were trained."""
    torch.manual_seed(0)
    shape = {"extractor": "logmel", "dim": 16, "layers": 3, "heads": 2, "ff_dim": 32}
    shape |= {"pos_kernel": 6, "pos_groups": 2, "chunk": {"ms": 160, "left": 2}}
    upstream = OFAUpstream(UpstreamConfig(**{**shape, **LOGMEL, **conf}), policy)
    if isinstance(upstream.compressor, CIFCompressor):
        with torch.no_grad():
            upstream.compressor.predictor.out.weight.mul_(20)
    return upstream.eval()


def noise(samples):
    """Noise that is now loud, now soft."""
    torch.manual_seed(samples)
    loudness = 1.1 + torch.sin(torch.arange(samples) / 900)
    return loudness * torch.randn(samples)


def run(stream, wave, portions):
    """Everything that a stream says: states of each depth, and durations."""
    new, rest = [], wave
    for size in portions:
        new.append(stream.accept(rest[:size]))
        rest = rest[size:]
        if not len(rest):
            break
    assert not len(rest)
    new.append(stream.finish())
    depths = zip(*(n.hidden_states for n in new), strict=True)
    states = [torch.cat(parts) for parts in depths]
    durations = torch.cat([n.durations for n in new])
    durations[-1] += new[-1].extends
    return states, durations


def any_portions(seed):
    sizes = random.Random(seed)
    while True:
        yield sizes.choice([0, 1, 100, 3000, 9000])


@torch.no_grad()
def check(upstream, wave, lam, portions, tolerance=1e-5):
    want = upstream(wave[None], lam=lam)
    states, durations = run(StreamingUpstream(upstream, lam), wave, portions)
    assert len(states) == len(want.hidden_states)
    for ours, theirs in zip(states, want.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs[0], atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(durations, want.durations[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.643, 0.9, 1.0, 1.6])
def test_a_stream_equals_the_whole(config, lam):
    upstream = make(**config)
    # Less than a frame, a frame, just before and after a chunk can be made, its end.
    edges = [1, 399, 400, STEP + 80, STEP + 239, STEP + 240, STEP + 400]
    for samples in (*edges, 2 * STEP + 79, 30000):
        check(upstream, noise(samples), lam, any_portions(samples))


@pytest.mark.parametrize("config", [LOGMEL, CONV], ids=["logmel", "conv"])
def test_one_sample_at_a_time(config):
    check(make(**config), noise(2 * STEP + 300), 0.643, iter(lambda: 1, 0))


@pytest.mark.parametrize("compressor", ["none", "mean", "conv"])
def test_compressors_of_a_fixed_rate(compressor):
    conf = {} if compressor == "none" else {"compressor_conf": {"factor": 4}}
    upstream = make(compressor=compressor, **conf)
    for samples in (500, 3 * STEP + 80, 20000):
        check(upstream, noise(samples), None, any_portions(samples))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_an_optimised_upstream_streams(dtype):
    tolerance = {"fp32": 1e-5, "bf16": 0.1, "int8": 0.05}[dtype]
    upstream = make().optimize("cpu", dtype)
    check(upstream, noise(20000), 0.643, any_portions(0), tolerance)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("lam", [0.0, 0.643, 1.0])
@pytest.mark.parametrize("grad", [False, True])
def test_padding_changes_nothing(config, lam, grad):
    upstream, sizes = make(**config), [20000, 8 * STEP + 80, 3 * STEP + 400, 300]
    lengths = torch.tensor(sizes)
    wave = torch.full((len(sizes), max(sizes)), 1e3)
    for row, size in zip(wave, sizes, strict=True):
        row[:size] = noise(size)
    with torch.set_grad_enabled(grad):
        batch = upstream(wave, lengths, lam)
    for row, size in enumerate(sizes):
        with torch.no_grad():
            alone = upstream(wave[row : row + 1, :size], lam=lam)
        units = int(alone.lengths)
        assert int(batch.lengths[row]) == units
        for x, y in zip(batch.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(x[row, :units], y[0], atol=1e-5, rtol=1e-5)
            assert torch.isfinite(x).all()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("lam", [0.0, 0.643])
def test_no_unit_sees_beyond_its_chunk(config, lam):
    upstream, wave = make(**config), noise(6 * STEP)
    stream = StreamingUpstream(upstream, lam)
    beyond = upstream.extractor.sees - 320
    new = stream.accept(wave[: 3 * STEP + beyond])
    other = torch.cat([wave[: 3 * STEP + beyond], 5 * noise(2 * STEP)])
    with torch.no_grad():
        whole = upstream(other[None], lam=lam).hidden_states[-1][0]
    units = len(new.durations)
    assert 0 < units < len(whole)
    torch.testing.assert_close(new.hidden_states[-1], whole[:units])


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    kind=st.sampled_from(["plain", "ties", "light"]),
    chunk=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_a_unit_is_in_the_chunk_in_which_it_fires(sizes, kind, chunk, seed):
    torch.manual_seed(seed)
    lengths, shape = torch.tensor(sizes), (len(sizes), max(sizes))
    weights = {
        "plain": torch.rand(shape),
        "ties": 1 / torch.randint(1, 6, shape),
        "light": 0.1 * torch.rand(shape),
    }[kind]
    frames = torch.ones(*shape, 1)
    out = integrate_and_fire(frames, weights, lengths)
    found = chunks_of_units(
        CompressorOutput(out.units, out.lengths, out.durations, weights=weights),
        lengths,
        threshold=1.0,
        chunk=chunk,
    )
    for row, size in enumerate(sizes):
        cif, fired = StreamingCIF(), []
        for t in range(size):
            one = cif.push(frames[row, None, t : t + 1], weights[row, None, t : t + 1])
            fired += int(one.lengths) * [t // chunk]
        fired += int(cif.flush().lengths) * [size // chunk]
        assert found[row, : len(fired)].tolist() == fired
        assert (found[row, len(fired) :] > 40).all()


@pytest.mark.parametrize(("config", "latency"), [(LOGMEL, 175.0), (CONV, 165.0)])
@pytest.mark.parametrize("lam", [0.0, 0.5, 0.9])
def test_latency_is_as_stated(config, latency, lam):
    step = 80  # samples: 5 ms
    stream = StreamingUpstream(make(**config), lam)
    assert stream.latency_ms == latency
    wave, given_out, durations = noise(9 * STEP), [], torch.zeros(0)
    for heard in range(step, len(wave) + 1, step):
        new = stream.accept(wave[heard - step : heard])
        given_out += len(new.durations) * [heard / 16]
        durations = torch.cat([durations, new.durations])
    first = (durations.cumsum(0) - durations + 1e-3).floor()  # first frame of each unit
    waits = torch.tensor(given_out) - 20 * first
    assert waits.max() <= latency + 20 * (1 + 1 / (1 - lam))
    # Reached, and by no wait for a fire where each frame is a unit.
    assert waits.max() >= latency
    assert lam > 0 or waits.max() == latency


def kept(stream):
    return sum(x.numel() for x in stream._past._kept.values()) + len(stream._samples)


@pytest.mark.parametrize("config", [LOGMEL, CONV], ids=["logmel", "conv"])
def test_memory_does_not_grow(config):
    stream = StreamingUpstream(make(**config), 0.0)
    sizes = []
    for _ in range(12):
        stream.accept(noise(STEP))
        sizes.append(kept(stream))
    assert sizes[1] < sizes[2] < sizes[3] == sizes[4] == sizes[-1]


def test_lambda_may_change_on_the_way():
    upstream = make()
    stream, wave = StreamingUpstream(upstream, 1.0), noise(6 * STEP + 240)
    parts = [stream.accept(wave[: 3 * STEP + 240])]
    stream.set_lam(None)
    espnet_ofa.set_lam(upstream, 0.25)
    parts += [stream.accept(wave[3 * STEP + 240 :]), stream.finish()]
    # The same by hand: frames of the first three chunks weigh alpha, the others more.
    with torch.no_grad():
        frames, lengths = upstream.extract(wave[None], torch.tensor([len(wave)]))
        assert isinstance(upstream.compressor, CIFCompressor)
        alpha = upstream.compressor.predictor(frames, lengths)
        weights = [
            compress_weights(part, lam)
            for part, lam in ((alpha[:, :24], 1.0), (alpha[:, 24:], 0.25))
        ]
        out = integrate_and_fire(frames, torch.cat(weights, 1))
        whole = CompressorOutput(*out[:3], weights=torch.cat(weights, 1), lam=0.25)
        chunks = chunks_of_units(whole, lengths, 1.0, 8)
        want = upstream.encode_units(whole._replace(chunks=chunks)).states[-1][0]
    got = torch.cat([part.hidden_states[-1] for part in parts])
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_after_the_end_a_new_recording_begins():
    upstream, wave = make(), noise(3 * STEP)
    stream = StreamingUpstream(upstream, 0.5, num_layers=1)
    nothing = stream.finish()
    assert [len(x) for x in nothing.hidden_states] == [0, 0]
    first, _ = run(stream, wave, any_portions(1))
    second, _ = run(stream, wave, any_portions(2))
    with torch.no_grad():
        want = upstream(wave[None], lam=0.5, num_layers=1).hidden_states
    assert torch.equal(first[1], second[1])
    torch.testing.assert_close(first[1], want[1][0], atol=1e-5, rtol=1e-5)
    stream.accept(wave)
    stream.reset()
    assert torch.equal(run(stream, wave, any_portions(3))[0][1], first[1])


def test_masked_prediction_learns():
    upstream = make(LamPolicy(0.5, "uniform"), dropout=0.0, attention_dropout=0.0)
    model = MaskedPredictionModel(upstream, num_codes=4, mask_span_ms=60).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    wave = torch.stack([noise(16000), noise(16001)[:16000]])
    lengths, codes = torch.tensor([16000, 9000]), torch.ones(2, 49)
    losses = []
    for _ in range(8):
        loss, stats, _ = model(wave, lengths, codes, torch.tensor([49, 27]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(stats["loss_masked"]))
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"chunk": {"ms": 320}}, "chunk must be {ms: ..., left: ...}"),
        ({"chunk": {"ms": 50, "left": 1}}, "ms must be a multiple of 20"),
        ({"chunk": {"ms": 0, "left": 1}}, "ms must be a multiple of 20"),
        ({"chunk": {"ms": 320, "left": -1}}, "left must be a number of chunks >= 0"),
        ({"extractor": "conv", "extractor_conf": {}}, "extractor_conf: {norm: layer}"),
        ({"normalize_wave": True}, "normalize_wave does not go with chunk"),
        ({"query_pool": 2}, "query_pool and key_pool do not go with chunk"),
        (
            {"compressor": "squeeze", "compressor_conf": {"groups": 2}},
            "squeeze, query_pool and key_pool do not go with chunk",
        ),
        (
            {"compressor": "mean", "compressor_conf": {"factor": 3}},
            "factor must divide the 8 frames of a chunk; got 3",
        ),
        ({"merge": {"layers": [1], "ratio": 0.5}}, "merge does not go with chunk"),
        ({"condition": ["durations"]}, "condition: durations does not go with chunk"),
    ],
)
def test_what_cannot_stream_is_refused(conf, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**conf)


def test_wrong_use():
    with pytest.raises(ValueError, match="trained with `chunk: "):
        StreamingUpstream(make(chunk={}), 0.5)
    with pytest.raises(ValueError, match=r"lambda must lie in \[0, 2\]"):
        StreamingUpstream(make(), 3.0)
    with pytest.raises(
        ValueError, match=r"samples \(N,\) of one recording; got \(1, 9"
    ):
        StreamingUpstream(make(), 0.5).accept(torch.zeros(1, 9))
    with pytest.raises(ValueError, match="in eval mode"):
        StreamingUpstream(make().train(), 0.5).accept(torch.zeros(9))
    with pytest.raises(LamUnsetError):
        StreamingUpstream(make()).accept(torch.zeros(2 * STEP))


def test_config_survives_a_round_trip(tmp_path):
    upstream = make(condition=["lam"])
    upstream.save_pretrained(tmp_path)
    again = OFAUpstream.from_pretrained(tmp_path)
    assert again.chunk == Chunk(frames=8, left=2)
    check(again, noise(9000), 0.7, any_portions(0))


def test_the_snippet_of_the_docs(tmp_path, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    page = Path(__file__).parents[2] / "docs/deployment.md"
    text = page.read_text(encoding="utf-8").split("## Streaming")[1]
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code) == 1
    make().save_pretrained(tmp_path / "exp/upstream")
    soundfile.write(tmp_path / "speech.wav", 0.1 * noise(20000).numpy(), 16000)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code[0], names)
    assert names["stream"].latency_ms == 175.0
