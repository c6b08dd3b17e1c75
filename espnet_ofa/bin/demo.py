"""Show what lambda does to one utterance: a table and a picture."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch

from espnet_ofa.bin.errors import one_line
from espnet_ofa.report.units_plot import UnitsRow, plot_units
from espnet_ofa.upstream.audio import read_wave
from espnet_ofa.upstream.extractor import LogMelExtractor
from espnet_ofa.upstream.model import OFAUpstream


def get_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--upstream", required=True, help="directory or hub id")
    parser.add_argument("--wav", required=True, help="audio file, 16 kHz mono")
    parser.add_argument(
        "--lams", type=float, nargs="+", default=[0.0, 0.43, 0.64, 0.86, 1.0]
    )
    parser.add_argument("--title", default="", help="title of the picture")
    parser.add_argument("--png", default="units.png", help="picture to write")
    return parser


@one_line
@torch.no_grad()
def main(cmd: Sequence[str] | None = None) -> None:
    """Encode at each lambda, print the table, draw the units."""
    args = get_parser().parse_args(cmd)
    wave = torch.from_numpy(read_wave(args.wav))[None]
    lengths = torch.tensor([wave.shape[1]])
    upstream = OFAUpstream.from_pretrained(args.upstream)
    upstream(wave, lengths, lam=0.0)  # first calls are slow
    rows = []
    alpha = None
    print("| lambda | frame period (ms) | units | encoder time (ms) |")
    print("|---|---|---|---|")
    for lam in args.lams:
        start = time.perf_counter()
        out = upstream(wave, lengths, lam=lam)
        spent = 1000 * (time.perf_counter() - start)
        period = out.period_ms.item()
        print(f"| {lam:g} | {period:.1f} | {int(out.lengths)} | {spent:.1f} |")
        ends = out.durations[0].cumsum(0).numpy() * upstream.frame_ms / 1000
        rows.append(UnitsRow(lam, period, ends))
        alpha = out.alpha if out.alpha is not None else alpha
    if alpha is None:
        raise SystemExit("nothing to draw: no lambda above 0, or no predictor")
    features, _ = LogMelExtractor(dim=1).log_mel(wave, lengths)
    mels = features.shape[2] // 2
    plot_units(
        features[0, :, :mels].numpy(), alpha[0].numpy(), rows, args.png, args.title
    )
    print(args.png)


if __name__ == "__main__":
    main()
