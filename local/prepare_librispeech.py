#!/usr/bin/env python3
"""Makes a data directory from parts of a corpus in the LibriSpeech layout.

The corpus may hold .flac, .ogg, .wav or .mp3 audio. Every file is decoded; missing,
left-over and damaged files are reported one by one, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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
        "--parts", required=True, help="for example 'train-clean-100 train-clean-360'"
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="data directory")
    parser.add_argument("--nj", type=int, default=2, help="processes")
    parser.add_argument(
        "--skip_bad", action="store_true", help="leave bad files out and go on"
    )
    return parser


def main(cmd: list[str] | None = None) -> int:
    """Entry point."""
    args = get_parser().parse_args(cmd)
    report = CorpusReport()
    try:
        data = DataDir.combine(
            read_part(find_part(args.corpus_dir, part), report, nj=args.nj)
            for part in args.parts.split()
        )
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
