#!/usr/bin/env python3
"""Makes data/{train,valid,test} from CMU AN4.

AN4 has a train and a test split; valid is made of some training speakers. Two layouts
are read: the one the university publishes (etc/, wav/ or raw/) and the LibriSpeech
layout in folders train/ and test/. A corpus with missing or damaged files is reported
one by one, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import an4
from corpus_report import CorpusReport, summary
from espnet_ofa.data.select import split_speakers
from librispeech import find_part, read_part


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--corpus_dir", type=Path, required=True)
    parser.add_argument("--data_dir", type=Path, required=True, help="output")
    parser.add_argument(
        "--valid_speakers", type=int, default=6, help="training speakers held out"
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses those speakers")
    parser.add_argument(
        "--audio_dir", type=Path, help="for flac copies of headerless .raw audio"
    )
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
        root = an4.find_root(args.corpus_dir)
        sets = {
            split: (
                read_part(find_part(args.corpus_dir, split), report, nj=args.nj)
                if root is None
                else an4.read_split(
                    root, split, report, audio_dir=args.audio_dir, nj=args.nj
                )
            )
            for split in ("train", "test")
        }
        log = args.data_dir / "an4.problems.log"
        if report.finish(log, skip_bad=args.skip_bad) != 0:
            return 1
        sets["train"], sets["valid"] = split_speakers(
            sets["train"], args.valid_speakers, args.seed
        )
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, data in sets.items():
        data.write(args.data_dir / name)
        print(summary(args.data_dir / name, data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
