"""SEW's up-sampler: units of a squeeze back to frames, learned."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Upsampler(nn.Module):
    """``Linear(D, S D)``, GELU, and each unit's S slots are its S frames (SEW).

    Several factors share it: a unit of S frames uses the first S slots. The squeeze's
    convolution looks around a unit's first frame whatever S is, so slot j means the
    same for all: the frame j after that one. One matrix per factor would learn that
    anew for each; repeating units before one ``Linear(D, D)`` would make the frames of
    a unit alike.

    Args:
        dim: width.
        slots: the largest factor.
    """

    def __init__(self, dim: int, slots: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, slots * dim)

    def forward(self, units: Tensor, factor: int, num_frames: int) -> Tensor:
        """(B, U, D) units of ``factor`` frames -> (B, num_frames, D)."""
        rows = factor * units.shape[2]
        y = F.linear(units, self.linear.weight[:rows], self.linear.bias[:rows])
        y = F.gelu(y).unflatten(2, (factor, -1))  # (B, U, factor, D)
        return y.flatten(1, 2)[:, :num_frames]
