"""Whole encoders, end to end, beside HuBERT base and HuBERT of their own depth."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from espnet_ofa.bench.hubert import YARDSTICK, Encode, find_hubert
from espnet_ofa.bench.parts import PartTimer, wrap_upstream
from espnet_ofa.bench.timing import Call, interleave
from espnet_ofa.report.cost import growth_exponent, shapes_only, upstream_macs
from espnet_ofa.subsampling import CompressorOutput
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig

RATE = 16000


def build_upstream(
    config: UpstreamConfig, dtype: str, device: torch.device, mode: str = "eager"
) -> tuple[OFAUpstream | None, str]:
    """An untrained upstream, made as fast as it can be, and how.

    Alpha starts near its target rate, 90 ms at lambda 1; the report has the measured
    one. None where this dtype cannot be had.
    """
    upstream = OFAUpstream(config).eval().to(device)
    try:
        how = f"optimize({str(device)!r}, {dtype!r}, {mode!r})"
        return upstream.optimize(device, dtype, mode), how
    except ValueError as error:
        return None, str(error)


def make_waves(batch: int, seconds: float, mixed: bool) -> tuple[Tensor, Tensor]:
    """(B, L) noise and (B,) lengths: all ``seconds``, or ``mixed`` from a third up."""
    generator = torch.Generator().manual_seed(0)
    size = round(seconds * RATE)
    wave = 0.1 * torch.randn(batch, size, generator=generator)
    lengths = torch.full((batch,), size)
    if mixed:
        lengths = torch.linspace(size / 3, size, batch).long()
    return wave, lengths


@torch.inference_mode()
def time_encoders(
    *,
    device: torch.device,
    dtype: str,
    layers: int,
    shape: dict[str, Any],
    extractors: list[str],
    lams: list[float],
    batch: int,
    seconds: float,
    mixed: bool,
    mode: str,
    rounds: int,
    most_seconds: float,
) -> dict[str, Any]:
    """Time HuBERT and our encoders in turns, in this process.

    Returns:
        ``sides``: one entry each with name, timing, RTF, parts and, for ours, lambda,
        frame period, units, MACs, and ``ideal``: seconds of the same Transformer when
        it is fed as many frames directly; ``notes``: what is left out.
    """
    wave, lengths = (x.to(device) for x in make_waves(batch, seconds, mixed))
    audio = float(lengths.sum()) / RATE
    baselines, notes = find_hubert(layers, shape, dtype)
    calls: dict[str, Call] = {}
    for name, (model, encode) in baselines.items():
        model.to(device)
        speech = wave.to(next(model.parameters()).dtype)
        calls[name] = _call(encode, speech, lengths)
        if mixed and name == YARDSTICK:
            calls[f"{name}, one by one"] = _one_by_one(encode, speech, lengths)
        if device.type == "cuda" and not mixed:  # a graph has no padding mask
            calls[f"{name}, graph"] = _graphed(encode, speech, lengths)
    facts: dict[str, dict[str, Any]] = {}
    timer = PartTimer(device)
    for extractor in extractors:
        config = UpstreamConfig(extractor=extractor, layers=layers, **shape)
        upstream, how = build_upstream(config, dtype, device, mode)
        if upstream is None:
            notes.append(f"{extractor} in {dtype} is left out: {how}")
            continue
        for lam in lams:
            name = f"{extractor}, lambda {lam:g}"
            calls[name] = _ours(upstream, wave, lengths, lam)
            fact = {"extractor": extractor, "how": how, "upstream": upstream}
            fact |= _facts(upstream, config, wave, lengths, lam)
            facts[name] = fact
    timings = interleave(
        calls, rounds=rounds, block=3, device=device, most_seconds=most_seconds
    )
    # Parts in a pass of their own: a clock between the parts would slow the whole.
    for name, fact in facts.items():
        upstream = fact.pop("upstream")
        ideal = _ideal(upstream, fact.pop("each"), device)
        fact["parts"], fact["ideal"] = _parts(timer, calls[name], ideal, upstream)
    sides = []
    for name, timing in timings.items():
        side: dict[str, Any] = {"name": name, **asdict(timing)}
        side["rtf"] = timing.seconds / audio
        sides.append({**side, **facts.get(name, {})})
    return {"sides": sides, "notes": notes, "audio_seconds": audio}


def _call(encode: Encode, wave: Tensor, lengths: Tensor) -> Call:
    return lambda i: encode(wave, lengths)


def _one_by_one(encode: Encode, wave: Tensor, lengths: Tensor) -> Call:
    """The same utterances without a batch, and so without padding."""
    rows = [
        (wave[i : i + 1, :n], lengths[i : i + 1])
        for i, n in enumerate(lengths.tolist())
    ]

    def run(i: int) -> None:
        for row, length in rows:
            encode(row, length)

    return run


def _graphed(encode: Encode, wave: Tensor, lengths: Tensor) -> Call:
    """The same call as a CUDA graph: what a baseline of fixed size can have, too."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            encode(wave, lengths)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    lengths = lengths.cpu()  # read while capturing
    with torch.cuda.graph(graph):
        encode(wave, lengths)
    return lambda i: graph.replay()


def _ours(upstream: OFAUpstream, wave: Tensor, lengths: Tensor, lam: float) -> Call:
    return lambda i: upstream(wave, lengths, lam=lam)


def _facts(
    upstream: OFAUpstream,
    config: UpstreamConfig,
    wave: Tensor,
    lengths: Tensor,
    lam: float,
) -> dict[str, Any]:
    """What a run says of itself: units, frame period, MACs by formula."""
    shapes = shapes_only(config)
    out = upstream(wave, lengths, lam=lam)
    each = [int(n) for n in out.lengths]
    macs = 0.0
    for samples, units in zip(lengths.tolist(), each, strict=True):
        macs += sum(upstream_macs(shapes, samples, units, lam).values())
    return {
        "lam": lam,
        "period_ms": OFAUpstream.frame_ms * int(out.frame_lengths.sum()) / sum(each),
        "units": sum(each),
        "each": each,
        "macs": macs,
    }


def _ideal(upstream: OFAUpstream, units: list[int], device: torch.device) -> Call:
    """The Transformer alone on as many random vectors: what compression aims at."""
    dtype = next(upstream.norm.parameters()).dtype
    width = upstream.project.in_features
    x = torch.randn(len(units), max(units), width, device=device, dtype=dtype)
    lengths = torch.tensor(units, device=device)
    durations = valid_mask(lengths, x.shape[1]).float()
    out = CompressorOutput(x, lengths, durations, lam=0.0)
    return lambda i: upstream.encode_units(upstream.in_chunks(out, lengths))


def _parts(
    timer: PartTimer, call: Call, ideal: Call, upstream: OFAUpstream, repeats: int = 5
) -> tuple[dict[str, float], float]:
    """Median seconds of each part (of those that run), and of ``ideal``, in turns."""
    wrap_upstream(timer, upstream)
    runs, ideals = [], []
    try:
        for i in range(repeats + 1):
            timer.reset()
            call(i)
            runs.append(dict(timer.seconds))
            timer.reset()
            ideal(i)
            ideals.append(sum(timer.seconds.values()))
    finally:
        timer.unwrap()
    parts = {k: statistics.median(run[k] for run in runs[1:]) for k in runs[0]}
    timer.seconds = {}
    return {k: v for k, v in parts.items() if v > 0}, statistics.median(ideals[1:])


@torch.inference_mode()
def time_growth(
    *,
    device: torch.device,
    layers: int,
    shape: dict[str, Any],
    seconds: list[float],
    lams: list[float],
    rounds: int,
    most_seconds: float,
) -> dict[str, Any]:
    """How the cost grows with the length of an utterance.

    Returns:
        ``curves``: by lambda the seconds and MACs at each length, and the exponents of
        a power law through each (1: linear, 2: quadratic).
    """
    config = UpstreamConfig(extractor="logmel", layers=layers, **shape)
    upstream, how = build_upstream(config, "fp32", device)
    assert upstream is not None
    curves = []
    for lam in lams:
        calls: dict[str, Call] = {}
        macs = []
        for length in seconds:
            wave, lengths = (x.to(device) for x in make_waves(1, length, False))
            calls[str(length)] = _ours(upstream, wave, lengths, lam)
            macs.append(_facts(upstream, config, wave, lengths, lam)["macs"])
        timings = interleave(
            calls, rounds=rounds, block=3, device=device, most_seconds=most_seconds
        )
        spent = [timings[str(length)].seconds for length in seconds]
        curves.append(
            {
                "lam": lam,
                "spent": spent,
                "macs": macs,
                "exponent": growth_exponent(seconds, spent),
                "macs_exponent": growth_exponent(seconds, macs),
            }
        )
    return {"how": how, "seconds": seconds, "curves": curves}
