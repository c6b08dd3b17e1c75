"""Parameters and multiply-accumulates (MACs).

:func:`count_macs` runs a model and counts, so that it fits any ESPnet encoder.
:func:`upstream_macs` is the same number for our own upstream by hand formulas: it
needs no run, says which part costs what, and guards the counter, which reports 0 for
attention on its fast paths.

Convolutions, matrix products, Fourier transforms, recurrent layers and CIF count.
Elementwise work (norms, activations, softmax) does not, as is usual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from espnet_ofa.subsampling.compressor import (
    CIFCompressor,
    CompressorOutput,
    ConvCompressor,
)
from espnet_ofa.upstream.extractor import (
    WINDOW,
    ConvExtractor,
    LogMelExtractor,
    frame_lengths,
)
from espnet_ofa.upstream.model import OFAUpstream


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters by top-level part; shared ones count where they appear first."""
    seen: set[int] = set()
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            part = name.partition(".")[0]
            counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def fft_macs(size: int) -> float:
    """MACs of one real Fourier transform: half of 2.5 N log2 N operations."""
    return 1.25 * size * math.log2(size)


def _rfft_flops(x_shape, dims, normalization, onesided, out_shape=None, **_) -> int:
    """Formula for FlopCounterMode, which knows none for Fourier transforms."""
    size = math.prod(x_shape[dim] for dim in dims)
    return int(2 * math.prod(x_shape) // size * fft_macs(size))


@contextmanager
def _countable_attention() -> Iterator[None]:
    """Attention as plain matrix products: the fused kernels count as zero."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def count_macs(model: nn.Module, call: Callable[[], object]) -> float:
    """MACs that ``call()`` spends.

    Args:
        model: what the call runs; its recurrent layers and CIF, which the counter does
            not see, are added by formula.
        call: for instance ``lambda: model.encode(speech, lengths)``.

    Returns:
        MACs, half of the floating-point operations.
    """
    formulas = {torch.ops.aten._fft_r2c: _rfft_flops}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    unseen = 0
    before: dict[nn.Module, int] = {}

    def start(module: nn.Module, inputs: tuple) -> None:
        before[module] = counter.get_total_flops()

    def recurrent(module: nn.Module, inputs: tuple, output: object) -> None:
        """Every weight acts once per step, unless the counter saw the products."""
        nonlocal unseen
        if counter.get_total_flops() == before.pop(module):
            data = getattr(inputs[0], "data", inputs[0])  # packed or padded
            weights = sum(
                p.numel() for n, p in module.named_parameters() if "weight" in n
            )
            unseen += weights * math.prod(data.shape[:-1])

    def cif(module: nn.Module, inputs: tuple, output: CompressorOutput) -> None:
        nonlocal unseen
        if output.weights is not None:  # else lambda 0 let the frames pass
            unseen += inputs[0].numel()  # each frame is added once, times its weight

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            hooks.append(module.register_forward_pre_hook(start))
            hooks.append(module.register_forward_hook(recurrent))
        elif isinstance(module, CIFCompressor):
            hooks.append(module.register_forward_hook(cif))
    try:
        with torch.no_grad(), _countable_attention(), counter:
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() / 2 + unseen


def conv_macs(layer: nn.Conv1d, steps: int) -> int:
    """MACs of a 1-D convolution with ``steps`` outputs."""
    kernel = layer.kernel_size[0]
    return steps * layer.out_channels * (layer.in_channels // layer.groups) * kernel


def linear_macs(layer: nn.Linear, steps: int) -> int:
    """MACs of a linear layer applied ``steps`` times."""
    return steps * layer.in_features * layer.out_features


def _extractor_macs(extractor: nn.Module, samples: int, frames: int) -> float:
    if isinstance(extractor, ConvExtractor):
        total, steps = 0, max(samples, WINDOW)
        for conv in extractor.convs:
            assert isinstance(conv, nn.Conv1d)
            steps = (steps - conv.kernel_size[0]) // conv.stride[0] + 1
            total += conv_macs(conv, steps)
        return total
    if isinstance(extractor, LogMelExtractor):
        half_frames = 2 * frames  # 10 ms, two of them stacked
        filters = extractor.fbanks.numel()  # type: ignore[operator]
        total = half_frames * (fft_macs(extractor.n_fft) + filters)
        total += linear_macs(extractor.project, frames)
        for layer in extractor.stem.modules():
            if isinstance(layer, nn.Conv1d):
                total += conv_macs(layer, frames)
            elif isinstance(layer, nn.Linear):
                total += linear_macs(layer, frames)
        return total
    raise ValueError(f"no formula for the extractor {type(extractor).__name__}")


def _compressor_macs(compressor: nn.Module, frames: int, units: int, lam: float) -> int:
    if isinstance(compressor, CIFCompressor):
        if lam == 0 and compressor.threshold == 1.0:
            return 0  # frames pass, the predictor does not run
        predictor = compressor.predictor
        total = conv_macs(predictor.conv, frames) + linear_macs(predictor.out, frames)
        return total + frames * predictor.conv.in_channels  # each frame, weighted
    if isinstance(compressor, ConvCompressor):
        return conv_macs(compressor.conv, units)
    return 0  # none and mean multiply nothing


def upstream_macs(
    upstream: OFAUpstream, samples: int, units: int, lam: float
) -> dict[str, float]:
    """MACs of one utterance by hand formulas.

    Args:
        upstream: the model; only its shapes are read.
        samples: audio samples at 16 kHz.
        units: units that the compressor makes of them at ``lam``.
        lam: lambda, at evaluation.

    Returns:
        MACs of ``extractor``, ``compressor`` (predictor and CIF, on frames) and
        ``transformer`` (projection included, on units; attention grows with units
        squared).
    """
    frames = int(frame_lengths(torch.tensor([samples])))
    transformer = upstream.transformer
    position = transformer.position.conv
    kernel, pad = position.kernel_size[0], position.padding[0]  # type: ignore[index]
    total = linear_macs(upstream.project, units)
    total += conv_macs(position, units + 2 * pad - kernel + 1)  # type: ignore[operator]
    for layer in transformer.layers:
        linear = sum(
            linear_macs(part, units)
            for part in layer.modules()
            if isinstance(part, nn.Linear)
        )
        total += linear + 2 * units * units * upstream.config.dim  # QK^T, weights x V
    return {
        "extractor": _extractor_macs(upstream.extractor, samples, frames),
        "compressor": _compressor_macs(upstream.compressor, frames, units, lam),
        "transformer": total,
    }


def measure_macs(
    model: nn.Module, wave: Tensor, *, sample_rate: int = 16000
) -> tuple[float, float]:
    """MACs of ``model.encode`` for one utterance.

    Give it real speech, not noise: how many units an utterance has depends on what is
    said. Attention grows with the square of the units, so MACs per second depend on the
    length too: sum over utterances like those of interest.

    Args:
        model: an ESPnet model, or anything with ``encode(speech, lengths)``.
        wave: (L,) samples on the model's device.
        sample_rate: of the wave, in Hz.

    Returns:
        MACs, and seconds of audio.
    """
    encode: Any = model.encode
    lengths = torch.tensor([len(wave)], device=wave.device)
    macs = count_macs(model, lambda: encode(wave[None], lengths))
    return macs, len(wave) / sample_rate
