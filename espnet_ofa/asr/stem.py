"""Stem and compressor of a preencoder or encoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.subsampling import Compressor, build_compressor
from espnet_ofa.subsampling.lengths import subsampled_lengths, zero_padding

_STRIDES = {1: (1, 1), 2: (1, 2), 4: (2, 2)}


class ConvStem(nn.Module):
    """Two convolutions over time (kernel 3, GELU) and a layer norm.

    Log-mel frames come every 8 or 10 ms; a stride of 2 brings them near the 20 ms
    that lambda's range is made for and gives each frame some context before frames
    are averaged. The shape is that of Whisper's stem (Radford et al., 2022, sec. 2.2).

    Args:
        input_size: width of the input.
        dim: width of the output.
        stride: 1, 2 or 4.
    """

    def __init__(self, input_size: int, dim: int, stride: int) -> None:
        super().__init__()
        if stride not in _STRIDES:
            raise ValueError(f"stem must be 0 (none), 1, 2 or 4; got {stride}")
        self.strides = _STRIDES[stride]
        first, second = self.strides
        self.first = nn.Conv1d(input_size, dim, 3, stride=first, padding=1)
        self.second = nn.Conv1d(dim, dim, 3, stride=second, padding=1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, input_size), (B,) -> (B, ceil(S / stride), dim), (B,)."""
        for conv, stride in zip((self.first, self.second), self.strides, strict=True):
            x = zero_padding(x, lengths)
            x = F.gelu(conv(x.transpose(1, 2))).transpose(1, 2)
            lengths = subsampled_lengths(lengths, stride)
        return self.norm(x), lengths


class NoStem(nn.Module):
    """Frames as they come."""

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D), (B,) -> the same."""
        return x, lengths


def build_front(
    input_size: int,
    frame_ms: float,
    stem: int,
    stem_dim: int,
    compressor: str,
    compressor_conf: dict | None,
    target_period_ms: float,
) -> tuple[ConvStem | NoStem, Compressor, int, float]:
    """Stem and compressor of a preencoder or encoder.

    Args:
        input_size: width of the frames.
        frame_ms: their period in ms.
        stem: stride of the stem, 0 for none.
        stem_dim: width of its output.
        compressor: see :func:`build_compressor`.
        compressor_conf: its arguments; ``target_rate`` follows from the periods.
        target_period_ms: frame period at lambda 1 that alpha starts from.

    Returns:
        Stem, compressor, width of the units, and the target rate in units per frame.

    Raises:
        ValueError: periods that contradict each other.
    """
    step_ms = frame_ms * max(stem, 1)
    if not 0 < step_ms < target_period_ms:
        raise ValueError(
            f"target_period_ms ({target_period_ms:g}) must exceed the {step_ms:g} ms "
            f"between the compressor's frames (frame_ms {frame_ms:g}, stem {stem})"
        )
    width = stem_dim if stem else input_size
    conf = dict(compressor_conf or {})
    rate = step_ms / target_period_ms
    if compressor == "cif":
        rate = conf.setdefault("target_rate", rate)
    return (
        ConvStem(input_size, stem_dim, stem) if stem else NoStem(),
        build_compressor(compressor, width, **conf),
        width,
        rate,
    )
