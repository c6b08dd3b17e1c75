"""One fresh process of a benchmark: a job on stdin, its answer into a file."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from espnet_ofa.files import write_text


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job.

    Args:
        job: ``kind`` (operator, memory, roofline, upstream, growth, streaming, onnx,
            train or asr), ``device``, and what the kind takes.
    """
    job = dict(job)
    kind, device = job.pop("kind"), torch.device(job.pop("device"))
    torch.manual_seed(0)
    if kind in ("operator", "memory"):
        from espnet_ofa.bench import operator

        dtype = getattr(torch, job.pop("dtype"))
        if kind == "memory":
            point = operator.Point(**job.pop("point"))
            return operator.measure_memory(
                job.pop("side"), point, device=device, dtype=dtype
            )
        points = [operator.Point(**point) for point in job.pop("points")]
        return {
            "points": [
                operator.time_point(point, device=device, dtype=dtype, **job)
                for point in points
            ]
        }
    if kind == "roofline":
        from espnet_ofa.bench.roofline import roofline

        return roofline(device, **job)
    if kind == "upstream":
        from espnet_ofa.bench.encoders import time_encoders

        return time_encoders(device=device, **job)
    if kind == "growth":
        from espnet_ofa.bench.encoders import time_growth

        return time_growth(device=device, **job)
    if kind == "streaming":
        from espnet_ofa.bench.streaming import time_streaming

        return time_streaming(device=device, **job)
    if kind == "onnx":
        from espnet_ofa.bench.onnx import time_onnx

        return time_onnx(device=device, **job)
    if kind == "train":
        from espnet_ofa.bench.training import time_training

        return time_training(device=device, **job)
    if kind == "asr":
        from espnet_ofa.bench.recognition import time_recognition

        return time_recognition(device=device, **job)
    raise ValueError(f"no benchmark is called {kind!r}")


def main() -> None:
    """Command line: the file to write."""
    answer = run(json.load(sys.stdin))
    write_text(sys.argv[1], json.dumps(answer))


if __name__ == "__main__":
    main()
