"""Classifying with a loaded ESPnet model while what it costs is measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from espnet2.tasks.cls import CLSTask
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from espnet_ofa.report.cost import count_parameters, measure_macs
from espnet_ofa.report.meter import EncoderMeter, now
from espnet_ofa.report.stats import DecodeStats
from espnet_ofa.upstream.audio import read_wave
from espnet_ofa.upstream.extractor import SAMPLE_RATE

MACS_UTTERANCES = 8  # MACs are counted on that many, spread over the test set
LOG_EVERY = 20.0  # seconds between two lines of progress


class Guess(NamedTuple):
    """The class that an utterance was given, and its probability."""

    label: str
    score: float


class Classifier:
    """A trained model of ``espnet2.tasks.cls``, one class per utterance.

    Args:
        config: the ``config.yaml`` that training left behind.
        model_file: its checkpoint.
        device: ``cpu`` or ``cuda``.

    Raises:
        ValueError: a model that gives several classes at once.
    """

    def __init__(self, config: str | Path, model_file: str | Path, device: str) -> None:
        model: Any
        model, args = CLSTask.build_model_from_file(
            str(config), str(model_file), device
        )
        if model.classification_type != "multi-class":
            raise ValueError(
                f"{config}: classification_type {model.classification_type}: only "
                "multi-class has an accuracy of whole utterances"
            )
        self.model = model.eval()
        self.device = torch.device(device)
        self.classes: list[str] = list(args.token_list)[: model.get_vocab_size()]
        self.meter = EncoderMeter(self.model)
        self.parameters = count_parameters(self.model)

    @torch.no_grad()
    def classify(self, waves: Sequence[Tensor]) -> list[Guess]:
        """The classes of (L,) waves on the device, computed together."""
        lengths = torch.tensor([len(wave) for wave in waves], device=self.device)
        out, units = self.model.encode(pad_sequence(list(waves), True), lengths)
        logits = self.model.decoder(out, units)
        scores, classes = logits.softmax(-1).max(-1)
        pairs = zip(classes.tolist(), scores.tolist(), strict=True)
        return [Guess(self.classes[index], score) for index, score in pairs]


def classify_test_set(
    classifier: Classifier,
    wavs: Mapping[str, str],
    stats: DecodeStats,
    batch_size: int = 1,
) -> dict[str, Guess]:
    """Classify one test set at the current lambda and fill in ``stats``.

    Args:
        classifier: the model.
        wavs: utterance to audio file.
        stats: gets what was measured.
        batch_size: utterances computed together, neighbours in ``wavs``.

    Raises:
        ValueError: nothing to classify, or audio that is not as it should be.
    """
    if not wavs:
        raise ValueError(f"{stats.test_set}: lists no utterance")
    chosen = {i * len(wavs) // MACS_UTTERANCES for i in range(MACS_UTTERANCES)}
    samples: list[Tensor] = []
    guesses: dict[str, Guess] = {}
    keys = list(wavs)
    started = logged = time.monotonic()
    with classifier.meter as meter:
        for first in range(0, len(keys), batch_size):
            batch = keys[first : first + batch_size]
            read = [torch.from_numpy(read_wave(wavs[key])) for key in batch]
            waves = [wave.to(classifier.device) for wave in read]
            if first == 0:
                classifier.classify(waves)  # warm-up, not measured
                meter.reset()
            for number, wave in enumerate(waves, first):
                stats.audio_seconds += len(wave) / SAMPLE_RATE
                if number in chosen:
                    samples.append(wave)
            before, start = meter.seconds, now(classifier.device)
            found = classifier.classify(waves)
            spent = now(classifier.device) - start
            stats.decode_seconds += spent - (meter.seconds - before)
            guesses.update(zip(batch, found, strict=True))
            if time.monotonic() - logged > LOG_EVERY:
                logged = time.monotonic()
                eta = (logged - started) * (len(keys) - len(guesses)) / len(guesses)
                message = "%s: %d of %d utterances, %.0f s to go"
                logging.info(message, stats.test_set, len(guesses), len(keys), eta)
        stats.encoder_seconds, stats.units = meter.seconds, meter.units
        stats.frames, stats.frame_seconds = meter.frames, meter.frame_seconds
    stats.utterances = len(guesses)
    for wave in samples:
        macs, seconds = measure_macs(classifier.model, wave, sample_rate=SAMPLE_RATE)
        stats.macs += macs
        stats.macs_seconds += seconds
    return guesses
