r"""Align transcripts with a CTC model of ours, for segments that guide pre-training.

    python -m espnet_ofa.bin.ssl_align --asr_train_config exp/asr/config.yaml \
        --asr_model_file exp/asr/valid.cer_ctc.ave.pth --lam 0 \
        --data_dirs dump/raw/train dump/raw/valid --output_dir exp/alignments
    ./run.sh --stage 6 --ssl_segments exp/alignments

Into the output go ``boundaries``, ends in seconds, and ``phones``, what the model's
tokens are, of all utterances. A segment lasts from where CTC says its token to where it
says the next one; what is in front of the first one is silence.
"""

from __future__ import annotations

import argparse
import functools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from espnet_ofa.bin.errors import one_line
from espnet_ofa.data.alignments import SILENCE
from espnet_ofa.data.boundaries import Segmentation, write_boundaries
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.parallel import run_jobs
from espnet_ofa.data.table import DataError
from espnet_ofa.plugin import register
from espnet_ofa.pretrain.ctc_alignment import ctc_path, label_starts
from espnet_ofa.subsampling.policy import fix_lam
from espnet_ofa.upstream.audio import read_wave
from espnet_ofa.upstream.checkpoint import check_fit
from espnet_ofa.upstream.extractor import SAMPLE_RATE
from espnet_ofa.upstream.importers.source import read_weights


class Model(NamedTuple):
    """Which recogniser aligns, and at which lambda; its own for None."""

    config: str
    file: str
    lam: float | None = None
    device: str = "cpu"


class Utterance(NamedTuple):
    """What is aligned: audio and what it says."""

    name: str
    path: str
    text: str


class Aligner:
    """A loaded recogniser.

    Raises:
        ValueError: it has no CTC, or no one part that makes units; or its checkpoint
            does not fit.
    """

    def __init__(self, which: Model) -> None:
        register()
        from espnet2.tasks.asr import ASRTask  # takes 10 s

        from espnet_ofa.asr.adapter import only_adapter

        state = read_weights(Path(which.file))  # before ESPnet unpickles it
        model, args = ASRTask.build_model_from_file(
            which.config, which.file, which.device
        )
        self.model: Any = model
        # ESPnet itself loads whatever fits and says nothing of the rest.
        check_fit(self.model, state, which.file)
        if self.model.ctc is None:
            raise ValueError(f"{which.config}: expected a model with CTC, found none")
        self.adapter = only_adapter(
            self.model.frontend, self.model.preencoder, self.model.encoder
        )
        if which.lam is not None:
            fix_lam(self.model, which.lam)
        self.model.eval()
        self.preprocess: Any = ASRTask.build_preprocess_fn(args, False)
        self.device = which.device
        stem = getattr(self.adapter, "stem", None)
        # Durations count the frames that the compressor gets.
        self.frame_ms = self.adapter.frame_ms * math.prod(
            getattr(stem, "strides", (1,))
        )

    @torch.no_grad()
    def __call__(self, one: Utterance) -> Segmentation:
        """Segments of an utterance.

        Raises:
            FileNotFoundError, ValueError: not 16 kHz mono, by file name.
            ValueError: names it; fewer units than its tokens need.
        """
        wave = read_wave(one.path)
        labels = np.asarray(self.preprocess(one.name, {"text": one.text})["text"])
        speech = torch.from_numpy(wave)[None].to(self.device)
        out, units = self.model.encode(
            speech, torch.tensor([len(wave)]).to(speech.device)
        )
        if isinstance(out, tuple):
            out = out[0]
        durations = self.adapter.take_durations()[0, : int(units)].double()
        log_probs = self.model.ctc.log_softmax(out)[0, : int(units)]
        try:
            path = ctc_path(log_probs.cpu().numpy(), labels, self.model.blank_id)
        except ValueError as error:
            raise ValueError(f"{one.name}: {error}") from None
        starts = label_starts(path, durations.cpu().numpy()) * self.frame_ms / 1000
        tokens = [self.model.token_list[i] for i in labels.tolist()]
        if starts[0] > 0:
            starts, tokens = np.append(0.0, starts), [SILENCE, *tokens]
        ends = np.append(starts[1:], len(wave) / SAMPLE_RATE)
        return Segmentation(ends, tuple(tokens))


@functools.cache
def aligner(which: Model) -> Aligner:
    """The recogniser itself, loaded once in each process."""
    torch.set_num_threads(1)
    return Aligner(which)


def align(one: Utterance, which: Model) -> Segmentation | str:
    """Segments of an utterance, or what is wrong with it."""
    try:
        return aligner(which)(one)
    except ValueError as error:
        if not str(error).startswith(one.name):
            raise
        return str(error)


def get_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--asr_train_config", required=True, help="config.yaml")
    parser.add_argument("--asr_model_file", required=True, help="checkpoint (.pth)")
    parser.add_argument(
        "--lam",
        type=float,
        help="lambda to align at, 0 for the finest units; the model's own by default",
    )
    parser.add_argument("--data_dirs", nargs="+", required=True, help="formatted ones")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--nj", type=int, default=1)
    return parser


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Align and write."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    model = Model(args.asr_train_config, args.asr_model_file, args.lam, args.device)
    utterances: list[Utterance] = []
    for folder in args.data_dirs:
        data = DataDir.read(folder)
        if data.text is None:
            raise FileNotFoundError(f"{folder}/text: not found; expected transcripts")
        for utt in data.utterances:
            utterances.append(Utterance(utt, data.wav[utt], data.text[utt]))
    made = run_jobs(
        functools.partial(align, which=model), utterances, nj=args.nj, label="align"
    )
    problems = [one for one in made if isinstance(one, str)]
    if problems:
        raise DataError(" ".join(args.data_dirs), problems)
    write_boundaries(
        args.output_dir,
        {
            one.name: segments
            for one, segments in zip(utterances, made, strict=True)
            if isinstance(segments, Segmentation)
        },
    )
    logging.info("%s: %d utterances", args.output_dir, len(utterances))


if __name__ == "__main__":
    main()
