"""Measuring what each lambda costs here: the table behind ``lam="auto"``."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from espnet_ofa.report.budget import Calibration, Price, machine, model_checksum
from espnet_ofa.report.cost import measure_macs
from espnet_ofa.report.environment import environment
from espnet_ofa.report.knob import LamKnob
from espnet_ofa.report.meter import EncoderMeter, now
from espnet_ofa.report.profile import UpstreamEncode
from espnet_ofa.upstream import OFAUpstream
from espnet_ofa.upstream.extractor import SAMPLE_RATE

LAMS = (0.0, 0.05, 0.15, 0.3, 0.45, 0.6, 0.75, 0.85, 0.95, 1.0, 1.25, 1.5)
MACS_UTTERANCES = 4


def calibrate_upstream(
    upstream: OFAUpstream, waves: Sequence[Tensor], lams: Sequence[float], rounds: int
) -> Calibration:
    """Time an upstream, one utterance at a time.

    Args:
        upstream: in eval mode, as it will run: on its device, optimised or not.
        waves: (L,) samples of real speech at 16 kHz, on its device.
        lams: lambdas to measure.
        rounds: passes over the audio for each, after one that does not count.
    """
    encoder = UpstreamEncode(upstream)

    def use(lam: float) -> None:
        encoder.lam = lam

    def run(wave: Tensor) -> None:
        encoder.encode(wave[None], torch.tensor([len(wave)], device=wave.device))

    setup = {"optimized": upstream.optimized}
    return _calibrate(
        encoder, upstream, waves, lams, rounds, use, run, setup, SAMPLE_RATE
    )


def calibrate_recogniser(
    decoder: Any,
    waves: Sequence[Tensor],
    lams: Sequence[float],
    rounds: int,
    setup: dict[str, Any],
) -> Calibration:
    """Time an ESPnet recogniser with its search.

    Args:
        decoder: :class:`espnet_ofa.report.decoding.Decoder`.
        setup: what decides how long the search takes.
    """

    def run(wave: Tensor) -> None:
        with decoder.meter:
            decoder.search([wave])

    rate = decoder.sample_rate
    model = decoder.model
    use = LamKnob(model).use
    return _calibrate(model, model, waves, lams, rounds, use, run, setup, rate)


@torch.no_grad()
def _calibrate(
    encoder: nn.Module,
    model: nn.Module,
    waves: Sequence[Tensor],
    lams: Sequence[float],
    rounds: int,
    use: Callable[[float], object],
    run: Callable[[Tensor], object],
    setup: dict[str, Any],
    rate: int,
) -> Calibration:
    if not waves or rounds < 1 or not lams:
        raise ValueError("calibration needs audio, lambdas and at least one round")
    device = waves[0].device
    checksum = model_checksum(model)  # before anything runs
    seconds = sum(map(len, waves)) / rate
    spent: dict[float, list[float]] = {lam: [] for lam in lams}
    for turn in range(rounds + 1):
        for lam in lams:  # in turns: a busy moment meets them all
            use(lam)
            start = now(device)
            for wave in waves if turn else waves[:1]:
                run(wave)
            if turn:
                spent[lam].append(now(device) - start)
        logging.info("calibration: pass %d of %d", turn, rounds)
    prices = []
    for lam in sorted(lams):
        use(lam)
        macs = audio = 0.0
        for wave in waves[:MACS_UTTERANCES]:
            one, length = measure_macs(encoder, wave, sample_rate=rate)
            macs, audio = macs + one, audio + length
        period = _period(encoder, waves[:MACS_UTTERANCES])
        rtf = statistics.median(spent[lam]) / seconds
        prices.append(Price(lam, period, macs / audio, rtf))
    facts: dict[str, Any] = {
        **environment(),
        "torch": str(torch.__version__),
        "audio_seconds": seconds,
        "utterances": len(waves),
        "rounds": rounds,
    }
    return Calibration(checksum, machine(device), setup, prices, facts)


def _period(encoder: Any, waves: Sequence[Tensor]) -> float:
    with EncoderMeter(encoder) as meter:
        for wave in waves:
            encoder.encode(wave[None], torch.tensor([len(wave)], device=wave.device))
    if not meter.frame_seconds:
        raise ValueError(f"{type(encoder).__name__} has no part that compresses")
    return 1000.0 * meter.frame_seconds / meter.units
