r"""Score segments, and the fires of an upstream, against a corpus' true boundaries.

    python -m espnet_ofa.bin.ssl_boundaries --data_dir dump/raw/valid \
        --segments codes=exp/ssl_targets_codes100/valid \
        --upstream exp/ssl_train_ssl_raw/upstream --lams 0.5 1

The data directory's own ``boundaries`` are taken for true. Each row stands beside the
score of as many boundaries at equal distances, which a few will hit by chance. An
upstream whose units all last the same has nothing but that to score, and no row.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from espnet_ofa.bin.errors import one_line
from espnet_ofa.data.alignments import read_alignments
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.table import DataError, read_table
from espnet_ofa.files import write_text
from espnet_ofa.pretrain.segments import check_boundaries, ends_in_frames
from espnet_ofa.report.segments import (
    TOLERANCE_MS,
    BoundaryScore,
    boundary_table,
    evenly_spaced,
)
from espnet_ofa.subsampling.rate import FRAME_MS
from espnet_ofa.upstream.audio import count_samples, read_wave
from espnet_ofa.upstream.extractor import SAMPLE_RATE, frame_lengths
from espnet_ofa.upstream.model import OFAUpstream

Find = Callable[[str], np.ndarray]  # ends in seconds of an utterance


def of_targets(folder: Path, frames: Mapping[str, int]) -> Find:
    """Segments that ssl_targets made.

    Raises:
        DataError: names all utterances without segments that fit.
    """
    path = folder / "boundaries"
    table = read_table(path)
    found: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for utt, num_frames in frames.items():
        try:
            ends = np.array([int(end) for end in table[utt].split()])
            check_boundaries(ends, num_frames, utt)
            found[utt] = ends * FRAME_MS / 1000
        except KeyError:
            problems.append(f"{utt} is missing: make targets of this data directory")
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise DataError(path, problems)
    return found.__getitem__


def unit_rows(upstream: OFAUpstream, lams: Sequence[float]) -> dict[str, float]:
    """What of an upstream there is to score: name to lambda."""
    if upstream.compressor.uses_lam:
        return {f"fires at lambda {lam:g}": lam for lam in lams}
    return {"merged units": 0.0} if upstream.config.merge else {}


@torch.no_grad()
def unit_ends(upstream: OFAUpstream, wave: np.ndarray, lams: Iterable[float]) -> list:
    """Ends of units in seconds, (U,) for each lambda; the first U - 1 are fires.

    A fire lies within a frame: where its unit has all of its mass. Where layers merge
    units, those that they leave.
    """
    samples = torch.from_numpy(wave)[None]
    frames, n_frames = upstream.extract(samples, torch.tensor([len(wave)]))
    ends = []
    for lam in lams:
        out = upstream.compress(frames, n_frames, lam)
        top = upstream.encode_units(out) if upstream.config.merge else out
        durations = top.durations[0, : int(top.lengths)].double().numpy()
        ends.append(durations.cumsum() * FRAME_MS / 1000)
    return ends


def get_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="has the true boundaries")
    parser.add_argument(
        "--segments",
        nargs="+",
        default=[],
        metavar="NAME=DIR",
        help="what ssl_targets made of this directory",
    )
    parser.add_argument(
        "--alignments",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="what espnet_ofa.data.alignments reads",
    )
    parser.add_argument("--tier", default="phones", help="of TextGrids")
    parser.add_argument("--upstream", help="whose units to score: folder or hub id")
    parser.add_argument("--lams", type=float, nargs="+", default=[0.5, 0.75, 1])
    parser.add_argument("--tolerance_ms", type=float, default=TOLERANCE_MS)
    parser.add_argument("--output", help="Markdown file for the table")
    return parser


def named(options: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """``NAME=PATH`` in two.

    Raises:
        ValueError: no name or no path.
    """
    for option in options:
        name, _, path = option.partition("=")
        if not name or not path:
            raise ValueError(f"expected NAME=PATH, found {option!r}")
        yield name, Path(path)


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Score and print."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    data = DataDir.read(args.data_dir)
    if data.boundaries is None:
        raise FileNotFoundError(
            f"{args.data_dir}/boundaries: not found; expected the true ends of phones "
            "in seconds to compare with"
        )
    samples = {utt: count_samples(path) for utt, path in data.wav.items()}
    frames = {utt: frame_lengths(count) for utt, count in samples.items()}
    seconds = {utt: count / SAMPLE_RATE for utt, count in samples.items()}
    finders: dict[str, Find] = {}
    for name, path in named(args.segments):
        finders[name] = of_targets(path, frames)
    for name, path in named(args.alignments):
        made = read_alignments(path, seconds, tier=args.tier)
        finders[name] = lambda utt, made=made: made[utt].ends
    upstream, units = None, {}
    if args.upstream:
        upstream = OFAUpstream.from_pretrained(args.upstream)
        units = unit_rows(upstream, args.lams)

    scores = defaultdict(lambda: (BoundaryScore(), BoundaryScore()))
    for utt, segments in data.boundaries.items():
        true = segments.ends
        on_frames = ends_in_frames(true, frames[utt], utt) * FRAME_MS / 1000
        rows = {"true ones, on 20 ms frames": on_frames}
        rows |= {name: find(utt) for name, find in finders.items()}
        if upstream is not None and units:
            wave = read_wave(data.wav[utt])
            ends = unit_ends(upstream, wave, units.values())
            rows |= zip(units, ends, strict=True)
        for name, ends in rows.items():
            own, even = scores[name]
            own.add(ends, true, args.tolerance_ms)
            even.add(evenly_spaced(ends), true, args.tolerance_ms)
    total, _ = scores["true ones, on 20 ms frames"]
    true_ms = 1000 * total.seconds / (total.true + len(data))
    table = boundary_table([(name, *pair) for name, pair in scores.items()])
    text = (
        f"{args.data_dir}: {len(data)} utterances, {total.true} true boundaries; their "
        f"segments last {true_ms:.1f} ms. Tolerance {args.tolerance_ms:g} ms; percent."
        f"\n\n{table}\n"
    )
    print(text, end="")
    if args.output:
        write_text(args.output, text)


if __name__ == "__main__":
    main()
