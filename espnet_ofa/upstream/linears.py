"""Linear layers for inference on CPUs: packed for oneDNN, or in int8.

Both lean on operators of torch whose names are private: oneDNN's linear with packed
weights, which torch's inductor calls, and the integer product, which torchao calls.
``tests/upstream/test_optimize.py`` says when they change.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

LIMIT = 127  # of int8, symmetric


class PackedLinear(nn.Module):
    """What a linear layer computes, with its weights laid out for the processor.

    ``nn.Linear`` multiplies with MKL in fp32, which is far from the peak of processors
    that are not Intel's, and packs its weights at every call.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.dtype = linear.weight.dtype
        weight = linear.weight.detach()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.register_buffer("weight", packed, persistent=False)
        bias = None if linear.bias is None else linear.bias.detach()
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return torch.ops.mkldnn._linear_pointwise(
            x.to(self.dtype), self.weight, self.bias, "none", [], ""
        )


class Int8Linear(nn.Module):
    """What a linear layer computes, to about a hundredth; inference only.

    Weights have a scale per output channel, activations one per vector, found as they
    come: nothing to calibrate. torch's own ``quantize_dynamic`` is being removed, keeps
    seven bits of the activations, and was no faster.

    Attributes:
        weight: (in, out) int8.
        scale: (out,) of the weights.
        bias: (out,).
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = _scale(linear.weight.detach().float())
        weight = (linear.weight.detach() / scale).round().to(torch.int8)
        self.register_buffer("weight", weight.T.contiguous())
        self.register_buffer("scale", scale[:, 0])
        bias = torch.zeros_like(scale[:, 0]) if linear.bias is None else linear.bias
        self.register_buffer("bias", bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        rows = x.float().flatten(0, -2)
        scale = _scale(rows)
        rows = (rows / scale).round_().to(torch.int8)
        y = torch.ops.aten._int_mm(rows, self.weight) * scale
        y = torch.addcmul(self.bias, y, self.scale)
        return y.unflatten(0, x.shape[:-1]).to(x.dtype)


def _scale(rows: Tensor) -> Tensor:
    """(R, D) -> (R, 1): what one step of int8 is worth."""
    return rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / LIMIT


def replace_linears(
    module: nn.Module, make: Callable[[nn.Linear], nn.Module], but: str | None = None
) -> None:
    """Replace every linear layer below a module.

    Args:
        module: changed in place.
        make: makes the new layer of the old one.
        but: name of layers to leave.
    """
    for name, child in module.named_children():
        if not isinstance(child, nn.Linear):
            replace_linears(child, make, but)
        elif name != but:
            setattr(module, name, make(child))
