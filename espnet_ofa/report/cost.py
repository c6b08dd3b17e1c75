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
from collections.abc import Callable, Iterator, Sequence
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
from espnet_ofa.subsampling.squeeze import PositionalConv, SqueezeCompressor
from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.conv_inference import CHUNK
from espnet_ofa.upstream.extractor import (
    HOP,
    WINDOW,
    ConvExtractor,
    LogMelExtractor,
    frame_lengths,
)
from espnet_ofa.upstream.merging import AdjacentMerging
from espnet_ofa.upstream.model import OFAUpstream

# MACs of merging for each element of the units: the cosine between neighbours takes
# three products (theirs, and two norms), the average one.
_MERGING = 4


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


def _linear_flops(x_shape, weight_shape, *_, out_shape=None, **__) -> int:
    """Formula for the linear layers of an optimised upstream."""
    assert out_shape is not None
    return 2 * math.prod(x_shape) * out_shape[-1]


def _formulas() -> dict[Any, Callable]:
    """What FlopCounterMode has to be told."""
    formulas: dict[Any, Callable] = {torch.ops.aten._fft_r2c: _rfft_flops}
    formulas[torch.ops.aten._int_mm] = _linear_flops
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        formulas[torch.ops.mkldnn._linear_pointwise] = _linear_flops
    return formulas


@contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Counts all within, backward passes too; not recurrent layers, CIF and merging.

    Attention runs as plain matrix products: the fused kernels count as zero.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    try:
        with sdpa_kernel(SDPBackend.MATH), counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def count_macs(model: nn.Module, call: Callable[[], object]) -> float:
    """MACs that ``call()`` spends; see :func:`macs_by_module`."""
    return macs_by_module(model, call)[""]


def macs_by_module(model: nn.Module, call: Callable[[], object]) -> dict[str, float]:
    """MACs that ``call()`` spends, module by module.

    Args:
        model: what the call runs; its recurrent layers and CIF, which the counter does
            not see, are added by formula.
        call: for instance ``lambda: model.encode(speech, lengths)``.

    Returns:
        MACs, half of the floating-point operations, by name of the module that ran
        (as in ``named_modules``), each with all that it called; under ``""`` those of
        the whole call.
    """
    unseen = 0.0
    spent: dict[str, float] = {}
    begun: dict[str, list[tuple[int, float]]] = {}

    def start(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple) -> None:
            begun.setdefault(name, []).append((counter.get_total_flops(), unseen))

        return hook

    def end(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            nonlocal unseen
            flops, before = begun[name].pop()
            flops = counter.get_total_flops() - flops
            unseen += _uncounted(module, inputs, output, flops)
            spent[name] = spent.get(name, 0.0) + flops / 2 + unseen - before

        return hook

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(start(name)))
        hooks.append(module.register_forward_hook(end(name)))
    try:
        with torch.no_grad(), flop_counter() as counter:
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return {**spent, "": counter.get_total_flops() / 2 + unseen}


def _uncounted(module: nn.Module, inputs: tuple, output: object, flops: int) -> float:
    """MACs of a module's call that the counter, which saw ``flops``, did not see."""
    if isinstance(module, nn.RNNBase) and flops == 0:
        # Every weight acts once per step.
        data = getattr(inputs[0], "data", inputs[0])  # packed or padded
        weights = sum(p.numel() for n, p in module.named_parameters() if "weight" in n)
        return weights * math.prod(data.shape[:-1])
    if isinstance(module, CIFCompressor):
        assert isinstance(output, CompressorOutput)
        # Each frame is added once, times its weight; at lambda 0 the frames pass.
        return inputs[0].numel() if output.weights is not None else 0.0
    if isinstance(module, AdjacentMerging):
        return _MERGING * inputs[0].numel()
    return 0.0


def conv_macs(layer: nn.Conv1d, steps: int) -> int:
    """MACs of a 1-D convolution with ``steps`` outputs."""
    kernel = layer.kernel_size[0]
    return steps * layer.out_channels * (layer.in_channels // layer.groups) * kernel


def linear_macs(layer: nn.Linear, steps: int) -> int:
    """MACs of a linear layer applied ``steps`` times."""
    return steps * layer.in_features * layer.out_features


def _conv_extractor_macs(extractor: ConvExtractor, samples: int, frames: int) -> int:
    """MACs of HuBERT's convolutions as they run on a CPU, chunk by chunk.

    Chunks overlap by a few samples. The group norm is folded into the first layer, for
    which the covariance of its windows is needed. (On a GPU neither: a little less.)
    """
    total = 0
    for first in range(0, frames, CHUNK):
        steps = (min(CHUNK, frames - first) - 1) * HOP + WINDOW
        for conv in extractor.convs:
            assert isinstance(conv, nn.Conv1d)
            steps = (steps - conv.kernel_size[0]) // conv.stride[0] + 1
            total += conv_macs(conv, steps)
    if extractor.norm == "group":
        first = extractor.convs[0]
        assert isinstance(first, nn.Conv1d)
        (kernel,), (stride,), width = (
            first.kernel_size,
            first.stride,
            first.out_channels,
        )
        windows = (samples - kernel) // stride + 1
        total += kernel * kernel * (windows + width) + kernel * width
    return total


def _extractor_macs(extractor: nn.Module, samples: int, frames: int) -> float:
    if isinstance(extractor, ConvExtractor):
        return _conv_extractor_macs(extractor, max(samples, WINDOW), frames)
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
    if isinstance(compressor, SqueezeCompressor):
        return _position_macs(compressor.position, frames, compressor.factor())
    return 0  # none and mean multiply nothing


def _position_macs(position: PositionalConv, steps: int, stride: int = 1) -> int:
    conv = position.conv
    if position.causal:
        return conv_macs(conv, steps)  # type: ignore[arg-type]
    kernel, pad = conv.kernel_size[0], conv.padding[0]  # type: ignore[index]
    outputs = (steps + 2 * pad - kernel) // stride + 1  # type: ignore[operator]
    return conv_macs(conv, outputs)  # type: ignore[arg-type]


def layer_macs(
    layer: nn.Module, units: int, query: int = 1, key: int = 1, kept: int | None = None
) -> dict[str, int]:
    """MACs of one Transformer layer over ``units``, by name of its part.

    Linear layers grow with the units, attention's two products (queries with keys,
    weights with values) with their square.

    Args:
        layer: of a Transformer.
        units: that enter it.
        query: units that share a query.
        key: units that share a key and value.
        kept: units that merging leaves to the feed-forward; all by default.
    """
    attention: Any = layer.attention
    width = attention.out.in_features
    queries, keys = -(-units // query), -(-units // key)
    projections = attention.qkv.in_features * width * (queries + 2 * keys)
    products = 2 * queries * keys * width
    outer = {
        name: linear_macs(part, units if kept is None else kept)
        for name, part in layer.named_modules()
        if isinstance(part, nn.Linear) and not name.startswith("attention.")
    }
    inner = projections + products + linear_macs(attention.out, queries)
    return {"attention": inner, **outer}


def _transformer_macs(
    upstream: OFAUpstream, units: int, kept: Sequence[int] | None
) -> int:
    transformer, setting = upstream.transformer, upstream.squeeze_now()
    total = linear_macs(upstream.project, units)
    if upstream.condition is not None:
        for part in (upstream.condition.hidden, upstream.condition.out):
            total += linear_macs(part, units)
    if transformer.position is not None:
        total += _position_macs(transformer.position, units)
    for i, layer in enumerate(transformer.layers):
        left = units
        if i in transformer.merging_layers:
            assert transformer.merging is not None
            if kept is not None:
                left = kept[transformer.merging_layers.index(i)]
            elif transformer.merging.ratio is not None:
                left = units - int(units * transformer.merging.ratio)
            else:
                raise ValueError("merging by threshold: give kept, units after each")
            total += _MERGING * units * upstream.config.dim
        parts = layer_macs(layer, units, setting.query, setting.key, left)
        total += sum(parts.values())
        units = left
    return total


def upstream_macs(
    upstream: OFAUpstream,
    samples: int,
    units: int,
    lam: float,
    kept: Sequence[int] | None = None,
) -> dict[str, float]:
    """MACs of one utterance by hand formulas.

    Args:
        upstream: the model, whose shapes are read, and its squeeze where it has one.
        samples: audio samples at 16 kHz.
        units: units that the compressor makes of them at ``lam``.
        lam: lambda, at evaluation.
        kept: units left by each layer that merges; known where merging is by ratio.

    Returns:
        MACs of ``extractor``, ``compressor`` (predictor and CIF, on frames) and
        ``transformer`` (projection included, on units; attention grows with units
        squared).
    """
    frames = int(frame_lengths(torch.tensor([samples])))
    return {
        "extractor": _extractor_macs(upstream.extractor, samples, frames),
        "compressor": _compressor_macs(upstream.compressor, frames, units, lam),
        "transformer": _transformer_macs(upstream, units, kept),
    }


def shapes_only(config: UpstreamConfig) -> OFAUpstream:
    """An upstream without memory, for the formulas: as it was before ``optimize``."""
    with torch.device("meta"), torch.inference_mode(False):
        return OFAUpstream(config)


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


def growth_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Exponent p of ``cost ~ size ** p``: the slope of a line through the logarithms.

    Raises:
        ValueError: fewer than two different sizes, or a number that is not positive.
    """
    if len(sizes) != len(costs) or len(set(sizes)) < 2:
        raise ValueError(
            "an exponent needs a cost for each of two sizes or more; got "
            f"{len(set(sizes))} sizes and {len(costs)} costs"
        )
    if min(*sizes, *costs) <= 0:
        raise ValueError("an exponent needs sizes and costs above zero")
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return rise / sum((a - mean_x) ** 2 for a in x)
