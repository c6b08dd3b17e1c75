"""Measuring an encoder while something else runs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from espnet_ofa.subsampling.compressor import Compressor
from espnet_ofa.subsampling.rate import FRAME_MS


def now(device: torch.device | str) -> float:
    """Seconds on a steady clock, after the device has finished what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _frame_counters(model: nn.Module) -> Iterator[tuple[nn.Module, float]]:
    """Where frames can be counted: modules called with (frames, lengths, ...).

    For each compressor that is the stem before it, if its owner has one, since a frame
    period refers to the frames before any subsampling; otherwise the compressor.

    Yields:
        The module, and the length of its input frames in ms.
    """
    for name, module in model.named_modules():
        if isinstance(module, Compressor):
            owner = model.get_submodule(name.rpartition(".")[0])
            frame_ms = float(getattr(owner, "frame_ms", FRAME_MS))
            yield getattr(owner, "stem", module), frame_ms


def _unit_lengths(model: nn.Module, lengths: Tensor) -> Tensor:
    """(B,) units behind the latest (B,) encoder outputs."""
    noted = (getattr(module, "unit_lengths", None) for module in model.modules())
    return next((units for units in noted if units is not None), lengths)


class EncoderMeter:
    """Counts and times every call of ``model.encode`` inside a ``with`` block.

    So ESPnet's ``Speech2Text`` can be used as it is, and the encoder's share of its
    time is still known. Frames are counted at the first compressor that a call reaches.

    Args:
        model: an ESPnet ASR model, or anything with ``encode(speech, lengths)`` that
            returns ``(out, lengths)``.

    Attributes:
        seconds: wall time inside ``encode``.
        units: encoder outputs; where the frontend makes frames of its units again
            (``upsample: true``), those units, on which the upstream ran.
        frames: frames that went into compression; None if nothing compressed.
        frame_seconds: frames times the length of a frame; None likewise.
        last_lengths: (B,) units of the latest call, None before the first.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self._hooks: list[Any] = []
        self.reset()

    def reset(self) -> None:
        """Start from zero."""
        self.seconds = 0.0
        self.units = 0
        self.frames: int | None = None
        self.frame_seconds: float | None = None
        self.last_lengths: Tensor | None = None
        self._seen: tuple[Tensor, float] | None = None  # frames, ms: of this call

    def __enter__(self) -> EncoderMeter:
        for module, frame_ms in _frame_counters(self.model):
            hook = self._note_frames(frame_ms)
            self._hooks.append(module.register_forward_hook(hook))
        encode = self.model.encode
        self._before = vars(self.model).get("encode")  # somebody else's, or None

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._seen = None
            device = next(self.model.parameters()).device
            start = now(device)
            out = encode(*args, **kwargs)
            self.seconds += now(device) - start
            self.last_lengths = out[1]
            self.units += int(_unit_lengths(self.model, out[1]).sum())
            if self._seen is not None:
                frames = int(self._seen[0].sum())
                self.frames = (self.frames or 0) + frames
                spent = frames * self._seen[1] / 1000.0
                self.frame_seconds = (self.frame_seconds or 0.0) + spent
            return out

        self.model.encode = timed  # an instance attribute that hides the method
        return self

    def __exit__(self, *exc: object) -> None:
        del self.model.encode
        if self._before is not None:
            self.model.encode = self._before
        while self._hooks:
            self._hooks.pop().remove()

    def _note_frames(self, frame_ms: float):
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            if self._seen is None:
                self._seen = (inputs[1], frame_ms)

        return hook
