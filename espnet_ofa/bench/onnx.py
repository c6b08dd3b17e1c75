"""An upstream in ONNX Runtime, beside PyTorch as it is and after ``optimize()``."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from espnet_ofa.bench.encoders import make_waves
from espnet_ofa.bench.timing import Call, interleave
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig
from espnet_ofa.zoo.onnx import export_onnx
from espnet_ofa.zoo.onnx_runtime import OnnxUpstream

PLAIN = "PyTorch"


def time_onnx(
    *,
    device: torch.device,
    shape: dict[str, Any],
    layers: int,
    extractor: str,
    dtypes: list[str],
    lams: list[float],
    seconds: float,
    rounds: int,
    most_seconds: float,
) -> dict[str, Any]:
    """Time one utterance of noise at each lambda, on a CPU, untrained weights.

    Returns:
        ``rows``: by side and lambda the timing and ``units``, which agree.
    """
    config = UpstreamConfig(extractor=extractor, layers=layers, **shape)
    upstream = OFAUpstream(config).eval()
    wave, lengths = make_waves(1, seconds, mixed=False)
    models: dict[str, OFAUpstream] = {PLAIN: upstream}
    for dtype in dtypes:
        faster = OFAUpstream(config).eval()  # not a copy: weight norm shares its class
        faster.load_state_dict(upstream.state_dict())
        models[f"{PLAIN}, optimize {dtype}"] = faster.optimize(device, dtype)
    runtimes = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in dtypes:
            path = Path(folder, f"{dtype}.onnx")
            export_onnx(upstream, path, int8=dtype == "int8")
            side = f"ONNX Runtime, {dtype}"
            runtimes[side] = OnnxUpstream(path, threads=torch.get_num_threads())
    with torch.inference_mode():
        calls: dict[tuple[str, float], Call] = {}
        units: dict[tuple[str, float], int] = {}
        for lam in lams:
            for side, model in models.items():
                calls[side, lam] = _encode(model, wave, lengths, lam)
                units[side, lam] = int(model(wave, lengths, lam=lam).lengths)
            for side, runtime in runtimes.items():
                calls[side, lam] = _run(runtime, wave, lam)
                (out,) = runtime([wave[0].numpy()], lam)
                units[side, lam] = len(out.units)
        named = {f"{side}/{lam}": call for (side, lam), call in calls.items()}
        timings = interleave(
            named, rounds=rounds, block=3, device=device, most_seconds=most_seconds
        )
    rows = [
        {"side": side, "lam": lam, "units": units[side, lam]}
        | asdict(timings[f"{side}/{lam}"])
        for side, lam in calls
    ]
    return {"rows": rows}


def _encode(
    model: OFAUpstream, wave: torch.Tensor, lengths: torch.Tensor, lam: float
) -> Call:
    return lambda i: model(wave, lengths, lam=lam)


def _run(runtime: OnnxUpstream, wave: torch.Tensor, lam: float) -> Call:
    samples = wave[0].numpy()
    return lambda i: runtime([samples], lam)
