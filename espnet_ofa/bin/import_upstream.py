"""Turn a published encoder into an upstream directory.

Reads HuBERT and wav2vec 2.0 in Hugging Face's layout (folder or hub id), torchaudio's
state dicts, and checkpoints of ESPnet's HuBERT task. At lambda 0, or without
compressor, the upstream's hidden states are the original's; a new ``cif`` compressor
has to be trained before other lambdas are of use (docs/pretraining.md).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

import yaml

from espnet_ofa.bin.errors import one_line
from espnet_ofa.upstream.checkpoint import save_pretrained
from espnet_ofa.upstream.importers import load_any


def get_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--source", required=True, help="folder, file or hub id")
    parser.add_argument("--output_dir", required=True, help="where the upstream goes")
    parser.add_argument("--compressor", default="cif", choices=["cif", "none"])
    parser.add_argument(
        "--target_rate", type=float, help="units per frame at lambda 1; default 2/9"
    )
    parser.add_argument("--layers", type=int, help="keep so many layers; default: all")
    hints = parser.add_argument_group("what a file does not say (None: as published)")
    hints.add_argument("--heads", type=int, help="attention heads (torchaudio)")
    for name, text in {
        "norm_first": "layer norm before each block (torchaudio)",
        "normalize_wave": "waveforms of zero mean and unit variance",
    }.items():
        hints.add_argument(
            f"--{name}", action=argparse.BooleanOptionalAction, help=text
        )
    return parser


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Read, build and write."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    if args.target_rate is not None and args.compressor != "cif":
        parser.error("--target_rate goes with --compressor cif")
    names = ("heads", "norm_first", "normalize_wave")
    hints = {x: getattr(args, x) for x in names if getattr(args, x) is not None}
    changes: dict = {"compressor": args.compressor}
    if args.target_rate is not None:
        changes["compressor_conf"] = {"target_rate": args.target_rate}
    if args.layers is not None:
        changes["layers"] = args.layers
    upstream = load_any(args.source, changes, hints=hints)
    save_pretrained(upstream, args.output_dir)
    print(yaml.safe_dump(upstream.config.to_dict(), sort_keys=False), end="")
    millions = sum(p.numel() for p in upstream.parameters()) / 1e6
    print(f"{millions:.1f} M parameters -> {args.output_dir}")


if __name__ == "__main__":
    main()
