"""Ready for inference: precision, memory and launches for the device at hand.

What decides the lengths, extractor and compressor, stays in fp32, so that an optimised
upstream makes the same units; only the Transformer changes its precision.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from espnet_ofa.upstream.buckets import Bucketed
from espnet_ofa.upstream.graphs import CUDARecorder, Graphs
from espnet_ofa.upstream.linears import Int8Linear, PackedLinear, replace_linears

if TYPE_CHECKING:
    from espnet_ofa.upstream.model import OFAUpstream

DTYPES = ("fp32", "bf16", "int8")
MODES = ("eager", "graphs")


def optimize(
    upstream: OFAUpstream,
    device: str | torch.device | None = None,
    dtype: str = "fp32",
    mode: str = "eager",
) -> OFAUpstream:
    """Prepare an upstream for inference, in place; see :meth:`OFAUpstream.optimize`."""
    device = next(upstream.parameters()).device if device is None else device
    device = torch.device(device)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    if dtype == "int8" and device.type != "cpu":
        raise ValueError(f"int8 is for CPUs, not {device}; take bf16 there")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    if mode == "graphs" and device.type != "cuda":
        raise ValueError(f"mode graphs is for CUDA devices, not {device}; take eager")
    if upstream.optimized is not None:
        raise ValueError(
            f"this upstream is optimised for {upstream.optimized} already: load it anew"
        )
    if mode == "graphs":
        upstream.bucketed = Bucketed(upstream, Graphs(CUDARecorder(device)))
    upstream.eval().requires_grad_(False).to(device)
    fold_weight_norm(upstream)
    if dtype == "bf16":
        for part in (upstream.project, upstream.transformer, upstream.upsampler):
            if part is not None:
                part.to(torch.bfloat16)
    if device.type == "cpu":
        keep_freed_memory()
        config = upstream.config
        # Where queries and keys are pooled, each takes its part of the weights.
        but = None if config.query_pool == config.key_pool == 1 else "qkv"
        if dtype == "int8":
            replace_linears(upstream.transformer, Int8Linear, but)
        elif torch.backends.mkldnn.is_available():
            replace_linears(upstream.transformer, PackedLinear, but)
    upstream.optimized = f"{device.type}, {dtype}"
    if mode == "graphs":
        upstream.optimized += ", graphs"
    return upstream


def fold_weight_norm(module: nn.Module) -> None:
    """Compute normalised weights once instead of at every call, in place."""
    for part in module.modules():
        if parametrize.is_parametrized(part, "weight"):
            # The property to remove is the class's, which a deep copy shares.
            shared = type(part)
            own: Any = type(shared.__name__, shared.__bases__, dict(vars(shared)))
            part.__class__ = own
            parametrize.remove_parametrizations(part, "weight")


def keep_freed_memory() -> None:
    """Let the C library reuse large blocks instead of returning them at once.

    glibc maps blocks of 32 MiB and more afresh each time, and the kernel clears their
    pages: a third of the time of HuBERT's convolutions. For the whole process; does
    nothing where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        largest = 2**31 - 1
        if not mallopt(-3, largest):  # M_MMAP_THRESHOLD, which older ones limit
            mallopt(-4, 0)  # M_MMAP_MAX
        mallopt(-1, largest)  # M_TRIM_THRESHOLD
