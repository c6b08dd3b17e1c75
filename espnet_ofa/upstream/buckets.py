"""Inference in functions of few shapes, so that they can be recorded and replayed.

Two of them around the one host wait::

    waveform, padded to a bucket   -> frames, weights, units of each row
    wait for the number of units, and round it up to a bucket
    frames, weights                -> units, hidden states

Lengths are those of the audio, and nothing looks at padding, so a bucket changes no
result. Lambda is a tensor among the inputs: whatever is recorded serves every lambda.
What runs them is the caller's: CUDA graphs (``graphs.py``), or, in tests, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from espnet_ofa.cif import integrate_and_fire
from espnet_ofa.cif.api import count_units, read_counts
from espnet_ofa.subsampling.base import CompressorOutput
from espnet_ofa.subsampling.compressor import CIFCompressor
from espnet_ofa.subsampling.rate import Lam, LamRule, check_lam, compress_weights
from espnet_ofa.upstream.extractor import HOP, WINDOW, frame_lengths

if TYPE_CHECKING:
    from espnet_ofa.upstream.model import OFAUpstream, UpstreamOutput

MOST_FRAMES = 16384  # of a padded batch: 16 utterances of 20 s, or one of 5 minutes
LEAST = 16  # frames or units in a bucket; attention likes multiples of eight

Run = Callable[..., tuple[Tensor, ...]]  # of a function, its tensors and its options


def bucket(size: int) -> int:
    """The size to pad to: at most a quarter more, four to an octave, 16 at least."""
    step = max(LEAST, 1 << max((size - 1).bit_length() - 3, 0))
    return -(-size // step) * step


class Bucketed:
    """The forward pass of an upstream with CIF, in two functions of few shapes.

    Args:
        upstream: in eval mode.
        run: ``run(function, *tensors, **options)`` calls ``function``, whose output
            shapes follow from its arguments and which never waits for the device.

    Raises:
        ValueError: units are not counted, or layers merge them.
    """

    def __init__(self, upstream: OFAUpstream, run: Run) -> None:
        config, cif = upstream.config, upstream.compressor
        if (
            not isinstance(cif, CIFCompressor)
            or upstream.squeeze_policy
            or config.merge
        ):
            raise ValueError(
                "mode graphs needs compressor: cif, no merge and one query_pool and "
                f"key_pool; got compressor: {config.compressor}, merge: "
                f"{config.merge}, query_pool: {config.query_pool}, key_pool: "
                f"{config.key_pool}. Take mode eager."
            )
        self.upstream = upstream
        self.run = run
        self.predictor = cif.predictor
        self.options: dict[str, Any] = {
            "threshold": cif.threshold,
            "tail_threshold": cif.tail_threshold,
            "backend": cif.backend,
        }

    def fits(self, wave: Tensor, lengths: Tensor, lam: Lam | LamRule | None) -> bool:
        """False for what runs without: too long, a rule, a gradient, wrong shapes."""
        if callable(lam) or (wave.requires_grad and torch.is_grad_enabled()):
            return False
        if wave.dim() != 2 or lengths.shape != wave.shape[:1]:
            return False
        return 0 < len(wave) * bucket(_frames(wave)) <= MOST_FRAMES

    @torch.no_grad()
    def __call__(
        self,
        wave: Tensor,
        lengths: Tensor,
        lam: Lam | LamRule | None,
        num_layers: int | None = None,
        num_units: int | None = None,
    ) -> UpstreamOutput:
        """As :meth:`OFAUpstream.forward`; ``alpha`` and ``weights`` at lambda 0 too."""
        from espnet_ofa.upstream.model import UpstreamOutput

        knob: Any = self.upstream.policy() if lam is None else lam  # it fits: no rule
        knob = _by_row(knob, wave)
        size = _frames(wave)
        longest = bucket(size) * HOP + WINDOW - 1  # samples that make so many frames
        with torch.autocast(wave.device.type, enabled=False):
            frames, n_frames, alpha, weights, counts = self.run(
                self._weigh,
                F.pad(wave, (0, longest - wave.shape[1])),
                lengths.to(wave.device, torch.int64),
                knob,
            )
            most = num_units
            if most is None:
                most, _ = read_counts(counts, weights, n_frames)
            states, units, durations, merged = self.run(
                self._encode,
                frames,
                n_frames,
                weights,
                knob,
                num_layers=num_layers,
                num_units=num_units or bucket(most),
            )
        return UpstreamOutput(
            list(states[:, :, :most]),
            units,
            durations[:, :most],
            n_frames,
            alpha[:, :size],
            weights[:, :size],
            merged,
        )

    def _weigh(self, wave: Tensor, samples: Tensor, lam: Tensor) -> tuple[Tensor, ...]:
        frames, lengths = self.upstream.extract(wave, samples)
        alpha = self.predictor(frames, lengths)
        weights = compress_weights(alpha, lam)
        counts = count_units(weights, lengths, **self.options)
        return frames, lengths, alpha, weights, counts

    def _encode(
        self,
        frames: Tensor,
        lengths: Tensor,
        weights: Tensor,
        lam: Tensor,
        num_layers: int | None,
        num_units: int,
    ) -> tuple[Tensor, ...]:
        cif = integrate_and_fire(
            frames, weights, lengths, num_units=num_units, **self.options
        )
        out = CompressorOutput(
            cif.units, cif.lengths, cif.durations, weights=weights, lam=lam
        )
        out = self.upstream.in_chunks(out, lengths)
        encoded = self.upstream.encode_units(out, num_layers, wait=False)
        return torch.stack(encoded.states), *cif[1:]


def _frames(wave: Tensor) -> int:
    return int(frame_lengths(wave.shape[1]))


def _by_row(lam: Lam, wave: Tensor) -> Tensor:
    """(B,) float64, in which numbers are mixed as exactly as outside a graph."""
    if not isinstance(lam, Tensor):
        lam = torch.full((), check_lam(lam), dtype=torch.float64, device=wave.device)
    return lam.detach().to(wave.device, torch.float64).expand(len(wave))
