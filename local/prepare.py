#!/usr/bin/env python3
"""Makes a data directory from parts of a corpus.

Two layouts are read: LibriSpeech's, with .flac, .ogg, .wav or .mp3 audio, and the one
that the university publishes AN4 in (etc/, wav/ or raw/). Every file is decoded;
missing, left-over and damaged files are reported one by one, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import an4
from corpus_report import CorpusReport, summary
from espnet_ofa.data.kaldi_dir import DataDir
from librispeech import find_part, read_part


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--corpus_dir", type=Path, required=True)
    parser.add_argument(
        "--parts",
        required=True,
        help="for example 'train-clean-100 train-clean-360'; a|b: a, or else b",
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="data directory")
    parser.add_argument(
        "--audio_only",
        action="store_true",
        help="leave out transcripts, which need not be there (LibriSpeech's layout)",
    )
    parser.add_argument(
        "--audio_dir", type=Path, help="for flac copies of AN4's headerless .raw audio"
    )
    parser.add_argument("--nj", type=int, default=2, help="processes")
    parser.add_argument(
        "--skip_bad", action="store_true", help="leave bad files out and go on"
    )
    return parser


def read(part: str, args: argparse.Namespace, report: CorpusReport) -> DataDir:
    """One part, in the layout that the corpus has."""
    root = an4.find_root(args.corpus_dir, part)
    if root is not None:
        return an4.read_split(root, part, report, audio_dir=args.audio_dir, nj=args.nj)
    return read_part(
        find_part(args.corpus_dir, part),
        report,
        nj=args.nj,
        audio_only=args.audio_only,
    )


def main(cmd: list[str] | None = None) -> int:
    """Entry point."""
    args = get_parser().parse_args(cmd)
    report = CorpusReport()
    try:
        data = DataDir.combine(read(part, args, report) for part in args.parts.split())
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    log = args.out_dir.with_name(f"{args.out_dir.name}.problems.log")
    status = report.finish(log, skip_bad=args.skip_bad)
    if status == 0:
        data.write(args.out_dir)
        print(summary(args.out_dir, data))
    return status


if __name__ == "__main__":
    sys.exit(main())
