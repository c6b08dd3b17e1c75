"""An upstream on a stream: time of each chunk, beside the whole recording at once."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from typing import Any

import torch

from espnet_ofa.bench.encoders import RATE, build_upstream, make_waves
from espnet_ofa.bench.timing import Timing
from espnet_ofa.upstream import UpstreamConfig
from espnet_ofa.upstream.streaming import StreamingUpstream


@torch.inference_mode()
def time_streaming(
    *,
    device: torch.device,
    dtype: str,
    layers: int,
    shape: dict[str, Any],
    chunk: dict[str, int],
    lams: list[float],
    seconds: float,
    rounds: int,
) -> dict[str, Any]:
    """Feed a log-mel upstream one chunk of samples after the other.

    Returns:
        ``rows``: by lambda the seconds of a chunk (median, quartiles and ``worst``),
        ``rtf`` of the stream, and of the ``offline`` encoder with the same mask;
        ``latency_ms``, without computing.
    """
    config = UpstreamConfig(extractor="logmel", layers=layers, chunk=chunk, **shape)
    upstream, how = build_upstream(config, dtype, device)
    if upstream is None:
        raise ValueError(how)
    wave, lengths = (x.to(device) for x in make_waves(1, seconds, False))
    portions = wave[0].split(RATE * chunk["ms"] // 1000)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    rows = []
    for lam in lams:
        stream = StreamingUpstream(upstream, lam)
        chunks, streams, wholes = [], [], []
        for _ in range(rounds + 1):
            begin = start = clock()
            for portion in portions:
                stream.accept(portion)
                end = clock()
                chunks.append(end - start)
                start = end
            stream.finish()
            streams.append(clock() - begin)
            start = clock()
            out = upstream(wave, lengths, lam=lam)
            wholes.append(clock() - start)
        chunks = chunks[len(portions) :]  # the first turn loads things
        row: dict[str, Any] = {"lam": lam, "units": int(out.lengths)}
        row |= {**asdict(Timing.of(chunks)), "worst": max(chunks)}
        row["period_ms"] = float(out.period_ms)
        row["rtf"] = statistics.median(streams[1:]) / seconds
        row["offline"] = statistics.median(wholes[1:]) / seconds
        row["latency_ms"] = stream.latency_ms
        rows.append(row)
    return {"rows": rows, "how": how}
