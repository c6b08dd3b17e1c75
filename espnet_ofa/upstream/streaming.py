"""An upstream on a stream: units as soon as their chunk is over."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from espnet_ofa.cif import StreamingCIF
from espnet_ofa.subsampling.base import CompressorOutput
from espnet_ofa.subsampling.chunks import Past
from espnet_ofa.subsampling.compressor import CIFCompressor
from espnet_ofa.subsampling.rate import FRAME_MS, Lam, check_lam, compress_weights
from espnet_ofa.upstream.attention import Cached
from espnet_ofa.upstream.extractor import HOP, SAMPLE_RATE, WINDOW, frame_lengths
from espnet_ofa.upstream.model import OFAUpstream


class NewUnits(NamedTuple):
    """Units that are complete now, possibly none.

    Attributes:
        hidden_states: of every depth, (U, D) each.
        durations: (U,) frames of 20 ms that each unit covers.
        extends: frames by which the last unit *before these* lasts longer than was
            said; more than 0 only at the end, where what is left is no unit.
    """

    hidden_states: list[Tensor]
    durations: Tensor
    extends: float = 0.0


class StreamingUpstream:
    """Encodes one endless recording, chunk by chunk.

    All units of a recording are those that the upstream itself makes of the whole of
    it, to rounding, however its samples are portioned. What is remembered, keys and
    values above all, does not grow.

    Lambda may change at any time: from the next chunk on frames weigh as it says, a
    unit that is open goes on with what it has, and units before stay as they are.

    Args:
        upstream: with a ``chunk`` in its config, in eval mode; it may be optimised.
        lam: lambda; the upstream's own by default, also when that changes.
        num_layers: run only so many Transformer layers; all by default.

    Raises:
        ValueError: the upstream is not cut into chunks.

    Example:
        >>> stream = StreamingUpstream(upstream, lam=0.6)
        >>> for samples in microphone:            # (N,) at 16 kHz, of any N
        ...     new = stream.accept(samples)      # new.hidden_states[-1]: (U, D)
        >>> last = stream.finish()
    """

    def __init__(
        self,
        upstream: OFAUpstream,
        lam: float | None = None,
        num_layers: int | None = None,
    ) -> None:
        if upstream.chunk is None:
            raise ValueError(
                "this upstream looks at whole utterances: a stream needs one that was "
                "trained with `chunk: {ms: ..., left: ...}` in its config"
            )
        self.upstream = upstream
        self.chunk = upstream.chunk
        self.num_layers = num_layers
        self.set_lam(lam)
        self.reset()

    def reset(self) -> None:
        """Forget everything; the next samples begin another recording."""
        device = self.upstream.project.weight.device
        self._samples = torch.zeros(0, device=device)
        self._started = False
        self._past = Past()
        # Units of each chunk that the next one sees.
        self._units: deque[int] = deque(maxlen=self.chunk.left)
        self._cif: StreamingCIF | None = None
        compressor = self.upstream.compressor
        if isinstance(compressor, CIFCompressor):
            self._cif = StreamingCIF(compressor.threshold, compressor.tail_threshold)

    def set_lam(self, lam: float | None) -> None:
        """Choose lambda from the next chunk on; None for the upstream's own.

        Raises:
            ValueError: not in [0, 2].
        """
        self.lam = None if lam is None else check_lam(lam)

    @property
    def latency_ms(self) -> float:
        """How long a frame waits at most until its chunk is encoded, without computing.

        The first one waits for the whole chunk, and that for what its last frame sees
        beyond its 20 ms. A unit is given out with the chunk in which it fires, so that
        its first frames also wait for its last one: (1 + 1 / (1 - lam)) x 20 ms at
        most, where lambda is below 1.
        """
        beyond = 1000.0 * (self.upstream.extractor.sees - HOP) / SAMPLE_RATE
        return FRAME_MS * self.chunk.frames + beyond

    @torch.no_grad()
    def accept(self, samples: Tensor) -> NewUnits:
        """Take what was recorded since, and give out the units of whole chunks.

        Args:
            samples: (N,) at 16 kHz, any number of them.

        Raises:
            ValueError: not one row of samples, or the upstream is in train mode.
            LamUnsetError: neither this nor the upstream has a lambda.
        """
        if samples.dim() != 1:
            raise ValueError(
                f"expected samples (N,) of one recording; got {tuple(samples.shape)}"
            )
        if self.upstream.training:
            raise ValueError("a stream needs the upstream in eval mode: call eval()")
        self._samples = torch.cat([self._samples, samples.to(self._samples)])
        step = HOP * self.chunk.frames
        needed = step - HOP + self.upstream.extractor.sees
        new = []
        while len(self._samples) >= needed:
            new.append(self._encode([self._compress(self._samples[:needed])]))
            self._samples = self._samples[step:]
        return self._join(new)

    @torch.no_grad()
    def finish(self) -> NewUnits:
        """End the recording: give out its last units, and forget it."""
        size, last = len(self._samples), self._samples
        # What is too short for a frame is one if there is nothing else.
        frames = 0 if self._started and size < WINDOW else frame_lengths(size)
        begun = self._started or frames > 0
        new, parts, extends = [], [], 0.0
        if frames:
            parts.append(self._compress(last))
        if frames == self.chunk.frames:  # a tail fires after their chunk
            new.append(self._encode(parts))
            parts = []
        if self._cif is not None and begun:
            tail = self._cif.flush()
            if tail.lengths.item():
                parts.append(CompressorOutput(*tail[:3], lam=self._lam_now()))
            else:
                extends = tail.durations.item()
        if parts:
            new.append(self._encode(parts))
        out = self._join(new)
        self.reset()
        if len(out.durations):
            out.durations[-1] += extends
            extends = 0.0
        return out._replace(extends=extends)

    def _lam_now(self) -> Lam | None:
        if not self.upstream.compressor.uses_lam:
            return None
        return self.upstream.policy() if self.lam is None else self.lam

    def _compress(self, samples: Tensor) -> CompressorOutput:
        """The samples that the frames of a chunk see -> the units that fire in it."""
        upstream, lam = self.upstream, self._lam_now()
        self._started = True
        size = torch.tensor([len(samples)], device=samples.device)
        frames, lengths = upstream.extract(samples[None], size, self._past)
        compressor = upstream.compressor
        if self._cif is None:
            return compressor(frames, lengths)
        assert isinstance(compressor, CIFCompressor)
        assert lam is not None
        alpha = compressor.predictor(frames, lengths, self._past)
        out = self._cif.push(frames, compress_weights(alpha, lam))
        return CompressorOutput(*out[:3], lam=lam)

    def _encode(self, parts: list[CompressorOutput]) -> NewUnits:
        """Units of one chunk -> their hidden states."""
        units = torch.cat([part.units for part in parts], 1)
        durations = torch.cat([part.durations for part in parts], 1)
        seen, count = sum(self._units), units.shape[1]
        self._units.append(count)
        if not count:
            return self._join([])
        lengths = torch.full((1,), count, device=units.device)
        chunk = CompressorOutput(units, lengths, durations, lam=parts[-1].lam)
        scope = Cached(self._past, seen)
        encoded = self.upstream.encode_units(chunk, self.num_layers, scope=scope)
        return NewUnits([state[0] for state in encoded.states], durations[0])

    def _join(self, new: list[NewUnits]) -> NewUnits:
        """Those of several chunks, or of none."""
        if not new:
            weight = self.upstream.project.weight
            depth = len(self.upstream.transformer.layers[: self.num_layers])
            empty = weight.new_zeros(0, self.upstream.output_size())
            return NewUnits([empty] * (depth + 1), empty.new_zeros(0).float())
        states = zip(*(each.hidden_states for each in new), strict=True)
        durations = torch.cat([each.durations for each in new])
        return NewUnits([torch.cat(each) for each in states], durations)
