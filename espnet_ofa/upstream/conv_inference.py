"""HuBERT's convolutions at inference on a CPU: no padding, and chunk by chunk.

The group norm of the first layer needs each channel's mean and variance over the whole
utterance. That layer is linear in its window p of ten samples, so both follow from the
wave alone: with weights w they are ``w . E[p]`` and ``w . Cov[p] w``. Folded into the
weights and a bias, they leave layers that only see a few hundred samples, so that an
utterance is encoded a few seconds at a time, in memory that does not grow with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK = 256  # frames; larger ones are not faster, much smaller ones are slower


@torch.no_grad()
def encode_rows(
    convs: Sequence[nn.Conv1d],
    norms: Sequence[nn.LayerNorm],
    wave: Tensor,
    samples: Sequence[int],
) -> Tensor:
    """Encode each utterance by itself.

    Args:
        convs: the layers, without padding.
        norms: one, the first layer's norm over time, or as many as layers, over
            channels.
        wave: (B, L) samples.
        samples: B numbers, samples of each row that are not padding.

    Returns:
        (B, S, channels), zero on padding, where L samples make S frames.
    """
    strides = [conv.stride[0] for conv in convs]
    hop, window = 1, 1  # samples from frame to frame, and those that one frame sees
    for conv in convs:
        window += (conv.kernel_size[0] - 1) * hop
        hop *= conv.stride[0]
    frames = [max((n - window) // hop + 1, 0) for n in (wave.shape[1], *samples)]
    out = wave.new_zeros(len(wave), frames.pop(0), convs[-1].out_channels)
    over_channels = norms if len(norms) == len(convs) else [None] * len(convs)
    for row, (n, size) in enumerate(zip(samples, frames, strict=True)):
        weights: list[tuple[Tensor, Tensor | None]]
        weights = [(conv.weight, conv.bias) for conv in convs]
        if len(norms) == 1 and size:
            weights[0] = fold_norm(convs[0], norms[0], wave[row, :n])
        for first in range(0, size, CHUNK):
            last = min(first + CHUNK, size)
            x = wave[row, first * hop : (last - 1) * hop + window][None, None]
            for weight, stride, norm in zip(
                weights, strides, over_channels, strict=True
            ):
                x = F.conv1d(x, *weight, stride)
                if norm is not None:
                    x = norm(x.transpose(1, 2)).transpose(1, 2)
                x = torch.ops.aten.gelu_(x)
            out[row, first:last] = x[0].T
    return out


def fold_norm(
    conv: nn.Conv1d, norm: nn.LayerNorm, wave: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that has the norm of its output in it.

    A bias of the convolution itself would vanish in the norm.

    Args:
        conv: one input channel.
        norm: normalises every channel over time.
        wave: (L,) samples of the utterance.
    """
    windows = wave.double().unfold(0, conv.kernel_size[0], conv.stride[0])
    centre = windows.mean(0)
    windows = windows - centre  # (T, kernel)
    covariance = windows.T @ windows / len(windows)
    weight = conv.weight.double()[:, 0]  # (C, kernel)
    variance = ((weight @ covariance) * weight).sum(1)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - (weight @ centre) * scale
    dtype = conv.weight.dtype
    return (weight * scale[:, None]).to(dtype)[:, None], shift.to(dtype)
