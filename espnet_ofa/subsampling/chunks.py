"""Chunks: stretches of frames, beyond whose end a streaming encoder never looks.

Whatever looks around itself takes a :class:`Past`. Offline that is a fresh one, behind
which the whole utterance comes at once, in a stream the same one for every chunk: so
there is one piece of code for both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.cif.plan import accumulate
from espnet_ofa.subsampling.base import CompressorOutput
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.subsampling.rate import FRAME_MS

_PADDING = 2**40  # no utterance has as many chunks


class Chunk(NamedTuple):
    """How an encoder is cut.

    Attributes:
        frames: in a chunk.
        left: chunks before its own that a unit sees.
    """

    frames: int
    left: int

    @classmethod
    def parse(cls, values: dict) -> Chunk | None:
        """From ``{ms: 320, left: 2}``; None from ``{}``.

        Raises:
            ValueError: other keys, a length that is no whole number of frames, or a
                negative number of chunks.
        """
        if not values:
            return None
        if set(values) != {"ms", "left"}:
            raise ValueError(
                "chunk must be {ms: ..., left: ...}, the length of a chunk and how "
                f"many before its own a unit sees; got {values}"
            )
        frames, rest = divmod(values["ms"], FRAME_MS)
        if frames < 1 or rest:
            raise ValueError(
                f"chunk: ms must be a multiple of {FRAME_MS:g}, the length of a frame; "
                f"got {values['ms']}"
            )
        if not isinstance(values["left"], int) or values["left"] < 0:
            raise ValueError(
                f"chunk: left must be a number of chunks >= 0; got {values['left']!r}"
            )
        return cls(int(frames), values["left"])


class Past:
    """What modules remember of a stream, each for itself; nothing at its start."""

    def __init__(self) -> None:
        self._kept: dict[object, Tensor] = {}

    def before(self, key: object, x: Tensor, size: int) -> Tensor:
        """(B, C, T) behind the last ``size`` columns, zeros where nothing came."""
        kept = self._kept.get(key)
        if kept is None:
            kept = x.new_zeros(*x.shape[:2], size)
        x = torch.cat([kept, x], 2)
        self._kept[key] = x[..., x.shape[2] - size :]
        return x

    def add(self, key: object, x: Tensor) -> Tensor:
        """(B, K, C) -> their cumulative sums over K and over all that came before."""
        kept = self._kept.get(key)
        if kept is not None:
            x = torch.cat([x[:, :1] + kept, x[:, 1:]], 1)
        x = x.cumsum(1)
        self._kept[key] = x[:, -1:]
        return x

    def join(self, key: object, x: Tensor, size: int) -> Tensor:
        """(B, H, U, D) behind the last ``size`` rows of those kept; all are kept."""
        kept = self._kept.get(key)
        if kept is not None and size:
            x = torch.cat([kept[:, :, kept.shape[2] - size :], x], 2)
        self._kept[key] = x
        return x


def conv_in_chunks(
    conv: nn.Conv1d,
    weight: Tensor,
    bias: Tensor | None,
    x: Tensor,
    chunk: int,
    past: Past | None = None,
) -> Tensor:
    """A centred convolution that sees zeros behind the end of each chunk.

    As in dynamic chunk convolution (Li et al., "Dynamic Chunk Convolution for Unified
    Streaming and Non-Streaming Conformer ASR", ICASSP 2023): the past as it is, the
    future as far as the chunk goes; no later than the chunk itself.

    Args:
        conv: kernel and groups; what it remembers is kept under it.
        weight: its weights, in the dtype of the input.
        bias: likewise.
        x: (B, C, S), zero on padding.
        chunk: frames in a chunk.
        past: chunks before; an utterance begins by default.

    Returns:
        (B, C', S).
    """
    size, half = x.shape[2], conv.kernel_size[0] // 2
    x = (past or Past()).before(conv, x, half)
    x = F.pad(x, (0, -size % chunk)).unfold(2, half + chunk, chunk)
    rows = x.transpose(1, 2).flatten(0, 1)  # (B K, C, half + chunk)
    y = F.conv1d(F.pad(rows, (0, half)), weight, bias, groups=conv.groups)
    return y.unflatten(0, (len(x), -1)).transpose(1, 2).flatten(2)[..., :size]


def chunks_of_units(
    out: CompressorOutput, lengths: Tensor, threshold: float, chunk: int
) -> Tensor:
    """The chunk in which each unit fires.

    A tail fires when the utterance is over: where that ends with a chunk, in the next.

    Args:
        out: of a compressor.
        lengths: (B,) frames.
        threshold: mass of a unit.
        chunk: frames in a chunk.

    Returns:
        (B, U) int64; padding is in a chunk of its own, far behind all others.
    """
    if out.weights is None:  # all durations are whole frames
        found = ((out.durations.cumsum(1) - 1) / chunk).floor().long()
    else:
        # Not from durations, whose rounding would move a fire over the end of a chunk.
        mass = accumulate(out.weights.detach(), lengths, threshold)
        fired = mass.fires[:, chunk::chunk].contiguous()  # by the end of each chunk
        unit = torch.arange(out.units.shape[1], device=fired.device).to(fired)
        unit = unit.expand(len(fired), -1).contiguous()
        found = torch.searchsorted(fired, unit, right=True)
        found = torch.minimum(found, lengths[:, None] // chunk)
    return torch.where(valid_mask(out.lengths, found.shape[1]), found, _PADDING)
