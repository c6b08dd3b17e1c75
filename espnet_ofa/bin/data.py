#!/usr/bin/env python3
"""Tools for Kaldi-style data directories; needs neither torch nor ESPnet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from espnet_ofa.data import select
from espnet_ofa.data.audio import AUDIO_FORMATS, AudioError, audio_info, check_audio
from espnet_ofa.data.filter import filter_utterances
from espnet_ofa.data.format import format_audio, parse_sample_rate
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.parallel import run_jobs
from espnet_ofa.data.perturb import perturb_speed
from espnet_ofa.data.table import DataError, write_table
from espnet_ofa.data.tokens import (
    char_tokens,
    phone_tokens,
    read_texts,
    train_bpe,
    write_tokens,
)


def get_parser() -> argparse.ArgumentParser:
    """The command line: one subcommand per tool."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_ofa.bin.data", description=__doc__
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        function: Callable[[argparse.Namespace], int | None],
        *,
        in_out: bool = False,
        nj: bool = False,
        seed: bool = False,
    ) -> argparse.ArgumentParser:
        text = (function.__doc__ or "").strip()
        sub = commands.add_parser(
            function.__name__.strip("_"),
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.set_defaults(function=function)
        if in_out:
            sub.add_argument("--data_dir", type=Path, required=True, help="input")
            sub.add_argument("--out_dir", type=Path, required=True, help="output")
        if nj:
            sub.add_argument("--nj", type=int, default=2, help="processes")
        if seed:
            sub.add_argument("--seed", type=int, default=0)
        return sub

    sub = command(_perturb, in_out=True, nj=True)
    sub.add_argument("--audio_dir", type=Path, required=True, help="for the new audio")
    sub.add_argument(
        "--speed_perturb_factors", default="0.9 1.0 1.1", help="1.0 keeps the original"
    )
    sub.add_argument("--audio_format", choices=AUDIO_FORMATS, default="flac")

    sub = command(_format, in_out=True, nj=True)
    sub.add_argument("--fs", default="16k", help="sample rate, hertz or kilohertz")
    sub.add_argument("--audio_format", choices=AUDIO_FORMATS, default="flac")

    sub = command(_filter, in_out=True)
    sub.add_argument("--fs", default="16k", help="sample rate of the audio")
    sub.add_argument("--min_wav_duration", type=float, default=0.1, help="seconds")
    sub.add_argument("--max_wav_duration", type=float, default=20.0, help="seconds")
    sub.add_argument("--log", type=Path, help="list of the dropped utterances")

    sub = command(_tokens)
    sub.add_argument("--text", type=Path, nargs="+", required=True, help="Kaldi text")
    sub.add_argument("--out_dir", type=Path, required=True, help="gets tokens.txt")
    sub.add_argument("--token_type", choices=("bpe", "char", "phn"), default="bpe")
    sub.add_argument("--nbpe", type=int, default=30, help="number of BPE tokens")
    sub.add_argument("--bpemode", choices=("unigram", "bpe"), default="unigram")
    sub.add_argument("--bpe_nlsyms", default="", help="whole symbols for BPE, a,b,c")
    sub.add_argument("--nlsyms", default="", help="whole symbols for char, a,b,c")
    sub.add_argument("--bpe_char_cover", type=float, default=1.0)

    sub = command(_combine)
    sub.add_argument("--out_dir", type=Path, required=True, help="output")
    sub.add_argument("data_dirs", type=Path, nargs="+", metavar="DIR")

    sub = command(_subset, in_out=True, seed=True)
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("--utt_list", type=Path, help="file, first field is the id")
    which.add_argument("--speakers", help="ids, separated by spaces")
    which.add_argument("--num_utts", type=int, help="that many at random")
    which.add_argument("--max_hours", type=float, help="at random, at most that long")

    sub = command(_split, seed=True)
    sub.add_argument("--data_dir", type=Path, required=True, help="input")
    sub.add_argument("--train_dir", type=Path, required=True, help="output, the rest")
    sub.add_argument("--valid_dir", type=Path, required=True, help="output, held out")
    which = sub.add_mutually_exclusive_group()
    which.add_argument(
        "--valid_speakers",
        type=int,
        help="hold out so many speakers; by default a tenth of them",
    )
    which.add_argument("--valid_utts", type=int, help="hold out utterances")

    sub = command(_validate, nj=True)
    sub.add_argument("--audio", action="store_true", help="decode every audio file")
    sub.add_argument("data_dirs", type=Path, nargs="+", metavar="DIR")

    sub = command(_summary)
    sub.add_argument("data_dirs", type=Path, nargs="+", metavar="DIR")
    return parser


def _perturb(args: argparse.Namespace) -> None:
    """Speed perturbation: writes resampled copies, ids sp0.9-..., scales boundaries."""
    data = perturb_speed(
        DataDir.read(args.data_dir),
        [float(factor) for factor in args.speed_perturb_factors.split()],
        args.audio_dir,
        audio_format=args.audio_format,
        nj=args.nj,
    )
    data.write(args.out_dir)


def _format(args: argparse.Namespace) -> None:
    """Brings audio to one rate, mono, one format; finished files are kept."""
    data = format_audio(
        DataDir.read(args.data_dir),
        args.out_dir / "data",
        sample_rate=parse_sample_rate(args.fs),
        audio_format=args.audio_format,
        nj=args.nj,
    )
    data.write(args.out_dir)


def _filter(args: argparse.Namespace) -> None:
    """Drops utterances that are too short or too long or have no words."""
    data, report = filter_utterances(
        DataDir.read(args.data_dir),
        sample_rate=parse_sample_rate(args.fs),
        min_seconds=args.min_wav_duration,
        max_seconds=args.max_wav_duration,
    )
    data.check(args.data_dir, thorough=True)
    data.write(args.out_dir)
    if args.log is not None:
        write_table(args.log, report.dropped)
    print(f"{args.out_dir}: {report.summary()}")


def _tokens(args: argparse.Namespace) -> None:
    """Makes ESPnet's token list: BPE by sentencepiece, characters, or phones."""
    texts = read_texts(args.text)
    if args.token_type == "char":
        tokens = char_tokens(texts, _symbols(args.nlsyms))
    elif args.token_type == "phn":
        tokens = phone_tokens(texts)
    else:
        tokens = train_bpe(
            texts,
            args.out_dir / "bpe.model",
            vocab_size=args.nbpe,
            mode=args.bpemode,
            nlsyms=_symbols(args.bpe_nlsyms),
            character_coverage=args.bpe_char_cover,
        )
    write_tokens(args.out_dir / "tokens.txt", tokens)
    print(f"{args.out_dir}/tokens.txt: {len(tokens)} tokens")


def _symbols(text: str) -> list[str]:
    return [symbol for symbol in text.split(",") if symbol]


def _combine(args: argparse.Namespace) -> None:
    """Joins data directories; a table is kept where all of them have it."""
    DataDir.combine(map(DataDir.read, args.data_dirs)).write(args.out_dir)


def _subset(args: argparse.Namespace) -> None:
    """Some of the utterances: listed, by speaker, or at random."""
    data = DataDir.read(args.data_dir)
    if args.utt_list is not None:
        lines = args.utt_list.read_text(encoding="utf-8").splitlines()
        chosen = data.subset(line.split()[0] for line in lines if line.strip())
    elif args.speakers is not None:
        chosen = select.by_speakers(data, args.speakers.split())
    elif args.num_utts is not None:
        chosen = select.by_number(data, args.num_utts, args.seed)
    else:
        chosen = select.by_hours(data, args.max_hours, args.seed)
    chosen.write(args.out_dir)


def _split(args: argparse.Namespace) -> None:
    """Splits off a validation set: whole speakers, or utterances."""
    data = DataDir.read(args.data_dir)
    if args.valid_utts is not None:
        train, valid = select.split_utterances(data, args.valid_utts, args.seed)
    else:
        train, valid = select.split_speakers(data, args.valid_speakers, args.seed)
    train.write(args.train_dir)
    valid.write(args.valid_dir)


def _validate(args: argparse.Namespace) -> int:
    """Checks data directories; prints what is wrong, utterance by utterance."""
    status = 0
    for path in args.data_dirs:
        try:
            data = DataDir.read(path)
            data.check(path, thorough=True)
            if args.audio:
                found = run_jobs(
                    _audio_problem,
                    [data.wav[utt] for utt in data.utterances],
                    nj=args.nj,
                    label=f"check {path}",
                )
                problems = [
                    f"wav.scp: {utt}: {problem}"
                    for utt, problem in zip(data.utterances, found, strict=True)
                    if problem
                ]
                if problems:
                    raise DataError(path, problems)
            print(f"{path}: {len(data)} utterances, valid")
        except (DataError, FileNotFoundError) as error:
            print(error, file=sys.stderr)
            status = 1
    return status


def _audio_problem(path: str) -> str | None:
    try:
        check_audio(path)
    except AudioError as error:
        return str(error)
    return None


def _summary(args: argparse.Namespace) -> None:
    """Utterances, speakers, hours and words of data directories."""
    print("set\tutterances\tspeakers\thours\twords\ttypes\tcharacters/s")
    for path in args.data_dirs:
        data = DataDir.read(path)
        infos = [audio_info(name) for name in data.wav.values()]
        seconds = sum(info.frames / info.sample_rate for info in infos)
        texts = list((data.text or {}).values())
        words = [word for text in texts for word in text.split()]
        print(
            f"{path.name}\t{len(data)}\t{len(data.spk2utt)}\t{seconds / 3600:.3f}"
            f"\t{len(words)}\t{len(set(words))}"
            f"\t{sum(map(len, texts)) / seconds:.2f}"
        )


def main(cmd: list[str] | None = None) -> int:
    """Entry point; the exit status is 1 where the data is wrong."""
    args = get_parser().parse_args(cmd)
    try:
        return args.function(args) or 0
    except (ValueError, KeyError, FileNotFoundError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        print(f"error: {message}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
