"""Decoding with a loaded ESPnet model while everything worth knowing is measured."""

from __future__ import annotations

import argparse
import inspect
import logging
import time
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import espnet2.bin.asr_inference as stock
import torch
from espnet2.tasks.asr import ASRTask
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from espnet_ofa.asr.guard import needed_units
from espnet_ofa.report.cost import measure_macs
from espnet_ofa.report.grid import TestSet
from espnet_ofa.report.length_limit import LengthLimit
from espnet_ofa.report.meter import EncoderMeter, now
from espnet_ofa.report.scoring import read_text
from espnet_ofa.report.stats import DecodeStats
from espnet_ofa.upstream.audio import check_sounds
from espnet_ofa.upstream.checkpoint import check_fit
from espnet_ofa.upstream.extractor import frontend_rate
from espnet_ofa.upstream.importers.source import read_weights

MACS_UTTERANCES = 8  # MACs are counted on that many, spread over the test set
LOG_EVERY = 20.0  # seconds between two lines of progress


class Decoded(NamedTuple):
    """The best hypothesis of one utterance."""

    text: str
    token: list[str]
    token_int: list[int]
    score: float
    units: int
    capped: bool = False
    too_short: bool = False


TOO_SHORT = Decoded("", [], [], 0.0, units=0, too_short=True)


def check_recogniser(
    speech2text: Any, state: dict[str, Tensor], path: str, quantized: bool
) -> None:
    """ESPnet itself loads whatever fits and says nothing of the rest.

    Args:
        speech2text: ESPnet's ``Speech2Text``.
        state: weights in the checkpoint that it loaded.
        path: of that.
        quantized: whether ``quantize_asr_model`` was asked for.

    Raises:
        ValueError: the checkpoint lacks, adds or misshapes weights.
    """
    adapted = getattr(speech2text.asr_train_args, "use_adapter", False)
    # These keep other keys than the checkpoint has.
    if not (quantized or adapted):
        check_fit(speech2text.asr_model, state, path)


class Decoder:
    """One loaded model and a way of searching.

    Args:
        args: parsed options.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        device = "cuda" if args.ngpu else "cpu"
        wanted = inspect.signature(stock.Speech2Text.__init__).parameters
        options = {k: v for k, v in vars(args).items() if k in wanted}
        options.update(device=device, batch_size=1, maxlenratio=float(args.maxlenratio))
        self.speech2text = stock.Speech2Text(**options)
        self.model: Any = self.speech2text.asr_model
        path = Path(args.asr_model_file)
        quantized = getattr(args, "quantize_asr_model", False)
        check_recogniser(self.speech2text, read_weights(path), str(path), quantized)
        self.greedy = args.search == "greedy"
        self.batch_size = args.batch_size
        self.dtype = getattr(torch, args.dtype)
        self.device = torch.device(device)
        train_args = self.speech2text.asr_train_args
        conf = getattr(train_args, "frontend_conf", None)
        self.sample_rate = frontend_rate(conf)
        self.phones = train_args.token_type == "phn"
        self.preprocess = ASRTask.build_preprocess_fn(train_args, False)
        self.collate = ASRTask.build_collate_fn(train_args, False)
        self.meter = EncoderMeter(self.model)
        self.limit: LengthLimit | None = None
        beam_search: Any = self.speech2text.beam_search
        if args.maxlenratio < 0 and hasattr(beam_search, "post_process"):
            maximum = -int(args.maxlenratio)
            self.limit = LengthLimit(beam_search, maximum, self.meter)
            beam_search.post_process = self.limit
        if self.greedy and self.model.ctc is None:
            raise ValueError("--search greedy needs CTC, which this model lacks")

    def units_needed(self, key: str, text: str) -> int:
        """Units that CTC needs for a reference, tokenised as in training."""
        assert self.preprocess is not None
        labels = torch.as_tensor(self.preprocess(key, {"text": text})["text"])
        return int(needed_units(labels[None], torch.tensor([len(labels)])))

    def search(self, waves: Sequence[Tensor]) -> list[Decoded]:
        """Decode (L,) waves together; ``meter`` must be running."""
        try:
            return self._best_path(waves) if self.greedy else [self._beam(waves[0])]
        except stock.TooShortUttError as error:
            if len(waves) > 1:  # one of them: find out which
                return [self.search([wave])[0] for wave in waves]
            logging.warning("utterance of %d samples: %s", len(waves[0]), error)
            return [TOO_SHORT]

    def _beam(self, wave: Tensor) -> Decoded:
        out: Any = self.speech2text(wave)
        nbest = out[0] if isinstance(out, tuple) else out
        text, token, token_int, hyp = nbest[0]
        text = self._join(token, text)
        # A capped hypothesis got its end symbol when it had that many tokens.
        capped = self.limit is not None and len(hyp.yseq) - 2 >= self.limit.limit
        assert self.meter.last_lengths is not None
        units = int(self.meter.last_lengths[0])
        score = float(hyp.score)
        return Decoded(text or "", list(token), list(token_int), score, units, capped)

    def _join(self, token: Sequence[str], text: str | None) -> str:
        """ESPnet's text, but phones, which it glues together, with spaces."""
        return " ".join(token) if self.phones or text is None else text

    @torch.no_grad()
    def _best_path(self, waves: Sequence[Tensor]) -> list[Decoded]:
        lengths = torch.tensor([len(wave) for wave in waves], device=self.device)
        speech = pad_sequence(list(waves), batch_first=True)
        out, units = self.model.encode(speech, lengths)
        if isinstance(out, tuple):
            out = out[0]
        scores, ids = self.model.ctc.log_softmax(out).max(-1)  # (B, U) each
        skip = {self.model.blank_id, self.model.sos, self.model.eos}
        tokenizer, converter = self.speech2text.tokenizer, self.speech2text.converter
        results = []
        for row, n in enumerate(units.tolist()):
            path = [int(key) for key, _ in groupby(ids[row, :n].tolist())]
            token_int = [i for i in path if i not in skip]
            token = converter.ids2tokens(token_int)
            text = self._join(token, tokenizer and tokenizer.tokens2text(token))
            score = float(scores[row, :n].sum())
            results.append(Decoded(text, token, token_int, score, n))
        return results


def read_waves(
    decoder: Decoder, args: argparse.Namespace, test_set: TestSet
) -> Iterator[tuple[str, Tensor]]:
    """Utterances of a test set in its order: name and (L,) samples on the device.

    Raises:
        FileNotFoundError, ValueError: audio of another rate than the model's.
    """
    check_sounds(test_set.data, decoder.sample_rate)
    loader = ASRTask.build_streaming_iterator(
        test_set.data,
        preprocess_fn=decoder.preprocess,
        collate_fn=decoder.collate,
        key_file=args.key_file,
        batch_size=1,
        dtype=args.dtype,
        num_workers=args.num_workers,
        allow_variable_data_keys=args.allow_variable_data_keys,
        inference=True,
    )
    for keys, batch in loader:
        yield keys[0], batch["speech"][0].to(decoder.device, decoder.dtype)


def decode_test_set(
    decoder: Decoder, args: argparse.Namespace, test_set: TestSet, stats: DecodeStats
) -> dict[str, Decoded]:
    """Decode one test set at the current lambda and fill in ``stats``.

    Raises:
        ValueError: nothing to decode, or an utterance without its reference.
    """
    refs = read_text(test_set.reference) if test_set.reference else None
    if refs is not None and decoder.model.ctc is not None:
        stats.infeasible = 0
    total = len(read_text(args.key_file or test_set.index))
    if total == 0:
        raise ValueError(f"{args.key_file or test_set.index}: lists no utterance")
    chosen = {i * total // MACS_UTTERANCES for i in range(MACS_UTTERANCES)}
    samples: list[Tensor] = []
    results: dict[str, Decoded] = {}
    utterances = read_waves(decoder, args, test_set)
    size = decoder.batch_size
    started = logged = time.monotonic()
    with decoder.meter as meter:
        meter.reset()
        # Short and long do not share a batch: sort within a window of batches.
        while window := list(islice(utterances, size if size == 1 else 16 * size)):
            if not results:
                decoder.search([window[0][1]])  # warm-up, not measured
                meter.reset()
            for number, (key, wave) in enumerate(window, len(results)):
                results[key] = TOO_SHORT  # keeps the order of the test set
                stats.audio_seconds += len(wave) / decoder.sample_rate
                if number in chosen:
                    samples.append(wave)
            window.sort(key=lambda item: len(item[1]))
            for first in range(0, len(window), size):
                batch = window[first : first + size]
                before, start = meter.seconds, now(decoder.device)
                found = decoder.search([wave for _, wave in batch])
                spent = now(decoder.device) - start
                stats.decode_seconds += spent - (meter.seconds - before)
                results.update(zip((key for key, _ in batch), found, strict=True))
            if time.monotonic() - logged > LOG_EVERY:
                logged = time.monotonic()
                eta = (logged - started) * (total - len(results)) / len(results)
                message = "%s: %d of %d utterances, %.0f s to go"
                logging.info(message, test_set.name, len(results), total, eta)
        stats.encoder_seconds = meter.seconds
        stats.units = meter.units
        stats.frames, stats.frame_seconds = meter.frames, meter.frame_seconds
    for key, found in results.items():
        stats.capped += found.capped
        stats.too_short += found.too_short
        if refs is not None and stats.infeasible is not None:
            if key not in refs:
                raise ValueError(f"{test_set.reference}: no reference for {key}")
            stats.infeasible += found.units < decoder.units_needed(key, refs[key])
    stats.utterances = len(results)
    for wave in samples:
        try:
            macs, seconds = measure_macs(
                decoder.model, wave, sample_rate=decoder.sample_rate
            )
        except stock.TooShortUttError:  # decoded, if at all, as part of a batch
            continue
        stats.macs += macs
        stats.macs_seconds += seconds
    return results
