"""A light convolutional stem for log-mel frames."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

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
