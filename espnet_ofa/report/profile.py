"""What a model costs on some utterances: size, compute, rate, time and memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from espnet_ofa.report.cost import count_macs, count_parameters
from espnet_ofa.report.memory import peak_bytes
from espnet_ofa.report.meter import EncoderMeter, now
from espnet_ofa.subsampling.rate import Lam
from espnet_ofa.upstream.model import OFAUpstream


class Cost(NamedTuple):
    """What :func:`measure_cost` found.

    Attributes:
        parameters: of the whole model.
        macs_per_second: multiply-accumulates per second of audio, of the encoder.
        units_per_second: its outputs per second of audio.
        period_ms: measured frame period; None where nothing compresses.
        rtf: real-time factor: encoder seconds per second of audio, one utterance at a
            time; of each utterance the median over the repeats.
        peak_bytes: most memory that tensors took for one utterance, beside the model's.
    """

    parameters: int
    macs_per_second: float
    units_per_second: float
    period_ms: float | None
    rtf: float
    peak_bytes: int


class UpstreamEncode(nn.Module):
    """An upstream at one lambda, with the ``encode`` that ESPnet's models have."""

    def __init__(self, upstream: OFAUpstream, lam: Lam | None = None) -> None:
        super().__init__()
        self.upstream, self.lam = upstream, lam

    def encode(self, speech: Tensor, speech_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L), (B,) -> (B, U, D) last hidden states and (B,) lengths."""
        out = self.upstream(speech, speech_lengths, lam=self.lam)
        return out.hidden_states[-1], out.lengths


@torch.no_grad()
def measure_cost(
    model: nn.Module,
    waves: Sequence[Tensor],
    *,
    lam: Lam | None = None,
    repeats: int = 5,
    sample_rate: int = 16000,
) -> Cost:
    """Encode utterances one by one and measure.

    Args:
        model: an :class:`OFAUpstream`, an ESPnet model, or anything with
            ``encode(speech, lengths)`` that returns ``(out, lengths)``; in eval mode.
        waves: (L,) samples each, on the model's device. Real speech: how many units an
            utterance has depends on what is said.
        lam: lambda, for an upstream; for others :func:`espnet_ofa.set_lam` before.
        repeats: timings of each utterance, after one that does not count.
        sample_rate: of the waves, in Hz.

    Raises:
        ValueError: no utterance; a model in train mode, or lambda for one that is not
            an upstream.
    """
    if not waves:
        raise ValueError("measure_cost needs at least one utterance")
    if model.training:
        raise ValueError("measure_cost needs a model in eval mode; call model.eval()")
    if isinstance(model, OFAUpstream):
        model = UpstreamEncode(model, lam)
    elif lam is not None:
        raise ValueError("lam is for an OFAUpstream; set_lam(model, lam) for others")
    encode: Any = model.encode
    device = waves[0].device
    parameters = sum(count_parameters(model).values())
    macs = seconds = audio = 0.0
    units, frame_seconds, peak = 0, 0.0, 0
    for wave in waves:
        lengths = torch.tensor([len(wave)], device=device)
        call = partial(encode, wave[None], lengths)
        with EncoderMeter(model) as meter:
            cast(Any, model).encode(wave[None], lengths)
        units += meter.units
        frame_seconds += meter.frame_seconds or 0.0
        times = []
        for _ in range(repeats):
            start = now(device)
            call()
            times.append(now(device) - start)
        seconds += statistics.median(times)
        audio += len(wave) / sample_rate
        macs += count_macs(model, call)
        peak = max(peak, peak_bytes(call, device))
    return Cost(
        parameters,
        macs / audio,
        units / audio,
        1000.0 * frame_seconds / units if frame_seconds else None,
        seconds / audio,
        peak,
    )
