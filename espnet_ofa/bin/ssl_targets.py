"""Make SSL targets (k-means codes) and segments for data directories.

Codes are fitted on the first directory and applied to all. Into ``OUT/NAME`` go
``targets`` (one code per 20 ms frame) and, unless ``--segments none``, ``boundaries``
(first frame after each segment).
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

from espnet_ofa.bin.errors import one_line
from espnet_ofa.data.alignments import read_alignments
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.parallel import run_jobs
from espnet_ofa.data.parts import forget_parts, write_in_parts
from espnet_ofa.files import write_text
from espnet_ofa.pretrain.detection import (
    boundaries_from_change,
    fit_prominence,
    spectral_change,
)
from espnet_ofa.pretrain.segments import (
    boundaries_from_codes,
    ends_in_frames,
    fit_switch_cost,
    smoothed_codes,
)
from espnet_ofa.pretrain.targets import (
    FeatureFn,
    KMeans,
    cepstral_features,
    hidden_features,
    sample_frames,
)
from espnet_ofa.subsampling.rate import DEFAULT_MEAN_ALPHA, FRAME_MS
from espnet_ofa.upstream.audio import read_wave

THRESHOLD_UTTERANCES = 60  # that the threshold of segments is fitted on
MADE_HERE = ("codes", "detect")  # segments that are neither given nor left out


class FeatureSpec(NamedTuple):
    """What the targets are clustered from; ``upstream`` empty means cepstra."""

    upstream: str = ""
    layer: int = 0


@functools.cache
def feature_fn(spec: FeatureSpec) -> FeatureFn:
    """The function itself, built once in each process."""
    torch.set_num_threads(1)
    if not spec.upstream:
        return cepstral_features()
    from espnet_ofa.pretrain.teacher import load_teacher

    return hidden_features(load_teacher(spec.upstream), spec.layer)


class Segmenter(NamedTuple):
    """Where segments come from, and their rate.

    Attributes:
        source: ``codes`` or ``detect``; whatever else is not made here.
        threshold: what a switch between codes costs, or the least prominence.
    """

    source: str
    threshold: float = 0.0


def features_of(path: str, spec: FeatureSpec) -> np.ndarray:
    """(S, D) features of an audio file."""
    return feature_fn(spec)(read_wave(path))


def change_of(path: str) -> np.ndarray:
    """(2 S,) spectral change of an audio file."""
    torch.set_num_threads(1)
    return spectral_change(read_wave(path))


def label(
    path: str, spec: FeatureSpec, kmeans: KMeans, segmenter: Segmenter
) -> tuple[np.ndarray, np.ndarray | None]:
    """Codes of one file, and segment ends where they are made here."""
    samples = read_wave(path)
    distances = kmeans.distances(feature_fn(spec)(samples))
    codes, ends = distances.argmin(1), None
    if segmenter.source == "codes":
        ends = boundaries_from_codes(smoothed_codes(distances, segmenter.threshold))
    elif segmenter.source == "detect":
        ends = boundaries_from_change(spectral_change(samples), segmenter.threshold)
    return codes, ends


def given_segments(data: DataDir, utt: str, num_frames: int, where: str) -> np.ndarray:
    """Segment ends in frames from the boundaries of a data directory.

    Raises:
        ValueError: names the utterance without segments, or whose segments do not fit.
    """
    if data.boundaries is None or utt not in data.boundaries:
        raise ValueError(
            f"{where}: no segments for {utt} in {where}/boundaries; choose other "
            "--segments, or a file or folder of alignments"
        )
    return ends_in_frames(data.boundaries[utt].ends, num_frames, f"{where}: {utt}")


def with_alignments(data: DataDir, args: argparse.Namespace) -> DataDir:
    """The same data with the segments that ``--segments PATH`` holds for them."""
    seconds = {u: soundfile.info(path).duration for u, path in data.wav.items()}
    boundaries = read_alignments(
        args.segments, seconds, tier=args.tier, frame_ms=args.alignment_frame_ms
    )
    return replace(data, boundaries=boundaries)


def get_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--data_dirs", nargs="+", required=True, help="the first one is fitted on"
    )
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--num_codes", type=int, default=100)
    parser.add_argument(
        "--upstream",
        default="",
        help="cluster hidden states of this encoder: an upstream, or anything that "
        "espnet_ofa.bin.import_upstream reads (folder, file or hub id)",
    )
    parser.add_argument("--layer", type=int, default=0, help="its layer; 0: embedding")
    parser.add_argument(
        "--segments",
        default="codes",
        help="codes: smoothed runs of them; detect: peaks of spectral change; data: "
        "the data directory's boundaries; none; or a file or folder of alignments",
    )
    parser.add_argument(
        "--target_rate",
        type=float,
        default=DEFAULT_MEAN_ALPHA,
        help="segments per 20 ms frame that codes and detect aim at",
    )
    parser.add_argument("--tier", default="phones", help="of TextGrids")
    parser.add_argument(
        "--alignment_frame_ms",
        type=float,
        default=10.0,
        help="what a frame of *.lengths lasts",
    )
    parser.add_argument("--fit_utts", type=int, default=2000, help="fitted on so many")
    parser.add_argument("--fit_frames", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nj", type=int, default=1)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with an interrupted run of the same command on the same data",
    )
    return parser


def fit(
    data: DataDir, spec: FeatureSpec, args: argparse.Namespace
) -> tuple[KMeans, float]:
    """The codebook, and the threshold of segments that are made here."""
    paths = sorted(data.wav.values())
    random.Random(args.seed).shuffle(paths)
    fitted = run_jobs(
        functools.partial(features_of, spec=spec),
        paths[: args.fit_utts],
        nj=args.nj,
        label="features",
    )
    sample = sample_frames(fitted, args.fit_frames, args.seed)
    kmeans = KMeans.fit(sample, args.num_codes, args.seed)
    logging.info("%d codes from %d frames", args.num_codes, len(sample))
    threshold = 0.0
    if args.segments == "codes":
        some = [kmeans.distances(x) for x in fitted[:THRESHOLD_UTTERANCES]]
        threshold = fit_switch_cost(some, args.target_rate)
    elif args.segments == "detect":
        some = paths[:THRESHOLD_UTTERANCES]
        changes = run_jobs(change_of, some, nj=args.nj, label="spectral change")
        threshold = fit_prominence(changes, args.target_rate)
    return kmeans, threshold


def label_part(
    utts: Sequence[str],
    data: DataDir,
    where: str,
    label_file: functools.partial[tuple[np.ndarray, np.ndarray | None]],
    args: argparse.Namespace,
) -> Mapping[str, Mapping[str, str]]:
    """Lines of ``targets`` and ``boundaries`` of some utterances of a directory."""
    labels = run_jobs(
        label_file,
        [data.wav[u] for u in utts],
        nj=args.nj,
        label=f"targets {Path(where).name}",
    )
    codes = {u: x[0] for u, x in zip(utts, labels, strict=True)}
    ends = {u: x[1] for u, x in zip(utts, labels, strict=True)}
    if args.segments not in (*MADE_HERE, "none"):
        ends = {u: given_segments(data, u, len(codes[u]), where) for u in utts}
    return {
        "targets": {u: _line(x) for u, x in codes.items()},
        "boundaries": {u: _line(x) for u, x in ends.items() if x is not None},
    }


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Fit, label and write."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    torch.set_num_threads(1)
    spec = FeatureSpec(args.upstream, args.layer)
    out = Path(args.output_dir)
    dirs = {Path(d).name: (d, DataDir.read(d)) for d in args.data_dirs}
    if len(dirs) != len(args.data_dirs):
        raise ValueError(
            f"--data_dirs must differ in their last part: {args.data_dirs}"
        )
    if args.segments not in (*MADE_HERE, "data", "none"):
        dirs = {
            name: (path, with_alignments(data, args))
            for name, (path, data) in dirs.items()
        }

    tables = ["targets", "boundaries"] if args.segments != "none" else ["targets"]
    unfinished = out / "unfinished.json"  # there until all is done
    if args.resume and unfinished.exists():
        kmeans = KMeans.load(out / "kmeans.npy")
        threshold = json.loads(unfinished.read_text())["threshold"]
    else:
        unfinished.unlink(missing_ok=True)
        for name in dirs:
            forget_parts(out / name, tables)
        kmeans, threshold = fit(next(iter(dirs.values()))[1], spec, args)
        kmeans.save(out / "kmeans.npy")
        write_text(unfinished, json.dumps({"threshold": threshold}) + "\n")
    segmenter = Segmenter(args.segments, threshold)
    label_file = functools.partial(label, spec=spec, kmeans=kmeans, segmenter=segmenter)

    for name, (path, data) in dirs.items():
        make = functools.partial(
            label_part, data=data, where=path, label_file=label_file, args=args
        )
        write_in_parts(out / name, tables, data.utterances, make)
        frames = _values(out / name / "targets")
        facts = {
            "utterances": len(data),
            "frames": frames,
            "num_codes": args.num_codes,
        }
        if args.segments != "none":
            facts["segment_ms"] = FRAME_MS * frames / _values(out / name / "boundaries")
        write_text(out / name / "facts.json", json.dumps(facts) + "\n")
        logging.info("%s: %s", name, facts)
    unfinished.unlink()


def _values(table: Path) -> int:
    """How many values follow the keys of a table."""
    with table.open(encoding="utf-8") as lines:
        return sum(len(line.split()) - 1 for line in lines)


def _line(values: np.ndarray) -> str:
    return " ".join(map(str, values.tolist()))


if __name__ == "__main__":
    main()
