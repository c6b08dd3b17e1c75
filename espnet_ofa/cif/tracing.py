"""Whether values may be read."""

import torch
from torch import Tensor, nn


def is_traced() -> bool:
    """True under torch.export, torch.compile and torch.onnx.export."""
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


def reads_for_free(x: Tensor) -> bool:
    """True where the values of a tensor can be read without waiting for a device.

    Not where it has none: tensors that are traced, or stand for others.
    """
    return (
        x.device.type == "cpu" and type(x) in (Tensor, nn.Parameter) and not is_traced()
    )


def needs_gradients(x: Tensor, module: nn.Module) -> bool:
    """True if autograd has to see what a module computes from a tensor."""
    return torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in module.parameters())
    )
