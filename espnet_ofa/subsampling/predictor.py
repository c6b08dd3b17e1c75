"""Alpha from frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.subsampling.chunks import Past, conv_in_chunks
from espnet_ofa.subsampling.lengths import valid_mask, zero_padding
from espnet_ofa.subsampling.rate import DEFAULT_MEAN_ALPHA


class _Linear(nn.Linear):
    """Not quantised: ``quantize_dynamic`` replaces nn.Linear by its exact type.

    int8 would move alpha, and with it lengths; so a whole model can be quantised, as
    ``quantize_asr_model`` of ESPnet does.
    """


class AlphaPredictor(nn.Module):
    """Predicts the share of a unit that each frame contributes.

    Conv1d over time, LayerNorm, ReLU, Linear, sigmoid: the predictor of the ICASSP
    2023 paper. It runs in fp32 outside autocast, because a rounding of the weights
    moves fires by whole units.

    Args:
        dim: width of the frames.
        target_rate: mean alpha that training starts from (2/9: 90 ms at lambda 1). A
            fresh sigmoid would start near one half, and an SSL loss always rewards
            more units, so the rate has to start where it should stay.
        kernel: width of the convolution in frames, odd.
        hidden: channels inside; the frames' own width by default.

    Attributes:
        chunk: frames in a chunk, beyond whose end the convolution does not look; None
            for no such end. An upstream sets it.
    """

    chunk: int | None = None

    def __init__(
        self,
        dim: int,
        target_rate: float = DEFAULT_MEAN_ALPHA,
        kernel: int = 5,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 < target_rate < 1.0:
            raise ValueError(f"target_rate must lie in (0, 1); got {target_rate}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd to stay centred; got {kernel}")
        hidden = hidden or dim
        self.target_rate = target_rate
        self.conv = nn.Conv1d(dim, hidden, kernel, padding=kernel // 2)
        self.norm = nn.LayerNorm(hidden)
        self.out = _Linear(hidden, 1)
        # Beside the bias: nobody's gradient moves it, and DDP keeps ranks at one value.
        self.offset: Tensor
        self.register_buffer("offset", torch.zeros(1))
        self.reset_rate()

    def reset_rate(self) -> None:
        """Start at the target rate, also after a framework re-initialised us."""
        with torch.no_grad():
            self.out.reset_parameters()
            self.out.weight.mul_(0.1)  # close to the target rate for any input
            self.out.bias.fill_(math.log(self.target_rate / (1 - self.target_rate)))
            self.offset.zero_()

    @torch.no_grad()
    def anchor(self, alpha: Tensor, lengths: Tensor, gain: float = 0.1) -> None:
        """Take a step of the offset towards the target rate, after a training step.

        Args:
            alpha: (B, S) what was predicted just now.
            lengths: (B,) frames that are not padding.
            gain: share of the gap, in logits, that one step closes.
        """
        rate = alpha.sum() / lengths.sum()
        gap = math.log(self.target_rate / (1 - self.target_rate)) - torch.logit(
            rate, eps=1e-4
        )
        self.offset += gain * gap

    def forward(
        self, frames: Tensor, lengths: Tensor, past: Past | None = None
    ) -> Tensor:
        """Predict alpha.

        Args:
            frames: (B, S, dim).
            lengths: (B,) frames that are not padding.
            past: of a stream, of which ``frames`` are the next chunk.

        Returns:
            (B, S) alpha in [0, 1], fp32 or better, zero on padding.
        """
        with torch.autocast(frames.device.type, enabled=False):
            dtype = torch.promote_types(frames.dtype, torch.float32)
            x = zero_padding(frames, lengths).to(dtype)
            # Cast, since the weights of a half-precision model are not fp32.
            weight, bias = (p.to(dtype) for p in self.conv.parameters())
            x = x.transpose(1, 2)
            if self.chunk is None:
                padding = self.conv.kernel_size[0] // 2
                x = F.conv1d(x, weight, bias, padding=padding)
            else:
                x = conv_in_chunks(self.conv, weight, bias, x, self.chunk, past)
            weight, bias = (p.to(dtype) for p in self.norm.parameters())
            x = F.layer_norm(x.transpose(1, 2), weight.shape, weight, bias)
            weight, bias = (p.to(dtype) for p in self.out.parameters())
            logits = F.linear(torch.relu(x), weight, bias) + self.offset.to(dtype)
            alpha = torch.sigmoid(logits).squeeze(-1)
            return alpha * valid_mask(lengths, alpha.shape[1])
