r"""Export an upstream to ONNX: one file for every lambda, batch and length.

    python -m espnet_ofa.bin.export_onnx --upstream exp/upstream --out model.onnx
    python -m espnet_ofa.bin.export_onnx --upstream user/model --out small.onnx --int8

The file is compared with PyTorch before it is kept.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from espnet_ofa.bin.errors import one_line


def get_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--upstream", required=True, help="directory, zip or hub id (user/model)"
    )
    parser.add_argument("--out", required=True, help="file to write or replace")
    parser.add_argument("--num_layers", type=int, help="by default all")
    parser.add_argument(
        "--outputs",
        choices=("last", "all"),
        default="last",
        help="the topmost hidden state, or one of every layer",
    )
    parser.add_argument("--opset", type=int, default=18, help="18 to 22")
    parser.add_argument(
        "--int8", action="store_true", help="8 bit weights in the Transformer"
    )
    parser.add_argument("--name", help="of the model; by default the directory's")
    parser.add_argument("--license", help="of the weights; by default the card's")
    return parser


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Command line."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    from espnet_ofa.zoo.onnx import export_onnx

    done = export_onnx(
        args.upstream,
        args.out,
        num_layers=args.num_layers,
        outputs=args.outputs,
        opset=args.opset,
        int8=args.int8,
        name=args.name,
        license=args.license,
    )
    off = done.agreement
    print(
        f"{done.path}: {done.size / 1e6:.1f} MB; {off.runs} runs, hidden states within "
        f"{off.largest:.1e} of PyTorch ({off.relative:.1e} in the mean)"
    )


if __name__ == "__main__":
    main()
