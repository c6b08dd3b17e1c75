"""Where time goes inside a call, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from espnet_ofa.report.meter import now
from espnet_ofa.subsampling.compressor import Compressor
from espnet_ofa.upstream.model import OFAUpstream


class PartTimer:
    """Times methods of objects; a part that calls another does not pay for it.

    Attributes:
        seconds: by part, since the last :meth:`reset`.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0
        self._wrapped: list[tuple[Any, str, Any]] = []

    def reset(self) -> None:
        """Start from zero."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block as a part."""
        self._account()
        self._running.append(name)
        try:
            yield
        finally:
            self._account()
            self._running.pop()

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """Time each call of ``owner.method`` as a part, until :meth:`unwrap`."""
        before = vars(owner).get(method)
        call = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return call(*args, **kwargs)

        setattr(owner, method, timed)  # an instance attribute that hides the method
        self._wrapped.append((owner, method, before))
        self.seconds.setdefault(name, 0.0)

    def unwrap(self) -> None:
        """Leave no trace."""
        while self._wrapped:
            owner, method, before = self._wrapped.pop()
            if before is None:
                delattr(owner, method)
            else:
                setattr(owner, method, before)

    def _account(self) -> None:
        """Give the time since the last change to the part that was running."""
        time = now(self.device)
        if self._running:
            name = self._running[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + time - self._since
        self._since = time


def wrap_upstream(timer: PartTimer, upstream: OFAUpstream) -> None:
    """Parts ``extractor``, ``compressor`` and ``Transformer`` of an upstream."""
    timer.wrap(upstream, "extract", "extractor")
    timer.wrap(upstream.compressor, "forward", "compressor")
    timer.wrap(upstream, "encode_units", "Transformer")


def wrap_recogniser(timer: PartTimer, model: Any) -> None:
    """Parts of an ESPnet ASR model's encoder, wherever the compressor is.

    An upstream's; or ``frontend`` (features), ``compressor`` with its stem, and
    ``ESPnet encoder``; what is left of ``model.encode`` goes to ``other`` (the
    normalisation, say).
    """
    timer.wrap(model, "encode", "other")
    upstreams = [m for m in model.modules() if isinstance(m, OFAUpstream)]
    for upstream in upstreams:
        wrap_upstream(timer, upstream)
    if not upstreams:
        timer.wrap(model.frontend, "forward", "extractor")
        for name, module in model.named_modules():
            if isinstance(module, Compressor):
                timer.wrap(module, "forward", "compressor")
                owner = model.get_submodule(name.rpartition(".")[0])
                if isinstance(getattr(owner, "stem", None), nn.Module):
                    timer.wrap(owner.stem, "forward", "compressor")
    timer.wrap(model.encoder, "forward", "ESPnet encoder")
