"""What a training step is, for all that draws, masks or learns in one only."""

from __future__ import annotations

import torch
from torch import nn


def in_training_step(module: nn.Module) -> bool:
    """True in train mode with gradients enabled.

    ESPnet's ``collect_stats`` never calls ``eval()``: train mode alone is not enough.
    """
    return module.training and torch.is_grad_enabled()
