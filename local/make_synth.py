#!/usr/bin/env python3
"""Makes the synth corpus: spoken phrases by espeak-ng, with true phone boundaries.

Writes DATA_DIR/{train,valid,test,test_spell} and DATA_DIR/stats.json. The voices and
the sentences of valid, test and test_spell do not occur in train. The same options give
the same samples for any --nj; a re-run keeps the audio that is there and valid.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from espnet_ofa.files import write_text
from synth.corpus import Sizes, build


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    sizes = Sizes()
    parser.add_argument("--data_dir", type=Path, required=True, help="data directories")
    parser.add_argument(
        "--audio_dir", type=Path, required=True, help="where the audio files go"
    )
    parser.add_argument("--train_utts", type=int, default=sizes.train)
    parser.add_argument("--valid_utts", type=int, default=sizes.valid)
    parser.add_argument("--test_utts", type=int, default=sizes.test)
    parser.add_argument(
        "--test_spell_utts", type=int, default=sizes.test_spell, help="0: no such set"
    )
    parser.add_argument(
        "--spell_share",
        type=float,
        default=sizes.spell_share,
        help="share of the training utterances that spell letters and codes",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nj", type=int, default=2, help="processes")
    parser.add_argument("--audio_format", choices=("flac", "wav"), default="flac")
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Entry point."""
    args = get_parser().parse_args(cmd)
    sizes = Sizes(
        train=args.train_utts,
        valid=args.valid_utts,
        test=args.test_utts,
        test_spell=args.test_spell_utts,
        spell_share=args.spell_share,
    )
    stats = build(
        sizes,
        args.data_dir,
        args.audio_dir,
        seed=args.seed,
        nj=args.nj,
        audio_format=args.audio_format,
    )
    text = json.dumps(stats, indent=2)
    write_text(args.data_dir / "stats.json", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
