"""Parameters that ESPnet's ``init:`` must leave as they are."""

from __future__ import annotations

from torch import nn


class InitKeeper(nn.Module):
    """Brings parameters back after ESPnet's ``init:`` overwrote them.

    ``initialize`` rewrites every parameter of a model (biases become zero, loaded
    weights noise) and then calls ``espnet_initialization_fn`` of each module in
    registration order. So this child, registered last, has the last word.

    Args:
        *modules: whose parameters to keep.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self._kept = [(p, p.detach().clone()) for m in modules for p in m.parameters()]

    def espnet_initialization_fn(self) -> None:
        """Called by ``espnet2.torch_utils.initialize``."""
        for parameter, value in self._kept:
            parameter.data.copy_(value)

    def release(self) -> None:
        """Free the copies once training or decoding has begun."""
        self._kept = []
