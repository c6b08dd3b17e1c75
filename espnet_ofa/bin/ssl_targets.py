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
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.parallel import run_jobs
from espnet_ofa.data.table import write_table, write_text
from espnet_ofa.pretrain.segments import (
    boundaries_from_codes,
    check_boundaries,
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

SWITCH_COST_UTTERANCES = 60


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
    from espnet_ofa.upstream.model import OFAUpstream

    return hidden_features(OFAUpstream.from_pretrained(spec.upstream), spec.layer)


def features_of(path: str, spec: FeatureSpec) -> np.ndarray:
    """(S, D) features of an audio file.

    Raises:
        ValueError: not 16 kHz mono, by file name.
    """
    samples, rate = soundfile.read(path, dtype="float32")
    if rate != 16000 or samples.ndim != 1:
        raise ValueError(
            f"{path}: expected 16 kHz mono, found {rate} Hz with shape "
            f"{samples.shape}; run stage 3 (format) first"
        )
    return feature_fn(spec)(samples)


def label(
    path: str, spec: FeatureSpec, kmeans: KMeans, switch_cost: float | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Codes of one file, and segment ends where they come from codes."""
    frames = features_of(path, spec)
    distances = kmeans.distances(frames)
    codes = distances.argmin(1)
    if switch_cost is None:
        return codes, None
    return codes, boundaries_from_codes(smoothed_codes(distances, switch_cost))


def known_segments(data: DataDir, utt: str, num_frames: int, where: str) -> np.ndarray:
    """Segment ends in frames from the data directory's own ``boundaries``.

    Raises:
        ValueError: names the utterance without segments, or whose segments do not fit.
    """
    if data.boundaries is None or utt not in data.boundaries:
        raise ValueError(f"{where}: no segments for {utt} in {where}/boundaries")
    ends = np.round(data.boundaries[utt].ends * 1000 / FRAME_MS).astype(int)
    if abs(ends[-1] - num_frames) > 2:
        check_boundaries(ends, num_frames, utt)
    ends = np.unique(ends[(ends >= 1) & (ends < num_frames)])
    return np.append(ends, num_frames)


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
        "--upstream", default="", help="cluster hidden states of this upstream"
    )
    parser.add_argument("--layer", type=int, default=0, help="its layer; 0: embedding")
    parser.add_argument(
        "--segments",
        choices=["codes", "data", "none"],
        default="codes",
        help="smoothed runs of codes, the data directory's boundaries, or none",
    )
    parser.add_argument(
        "--target_rate",
        type=float,
        default=DEFAULT_MEAN_ALPHA,
        help="segments per 20 ms frame that smoothing aims at",
    )
    parser.add_argument("--fit_utts", type=int, default=2000, help="fitted on so many")
    parser.add_argument("--fit_frames", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nj", type=int, default=1)
    return parser


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

    first = next(iter(dirs.values()))[1]
    paths = sorted(first.wav.values())
    random.Random(args.seed).shuffle(paths)
    fitted = run_jobs(
        functools.partial(features_of, spec=spec),
        paths[: args.fit_utts],
        nj=args.nj,
        label="features",
    )
    sample = sample_frames(fitted, args.fit_frames, args.seed)
    kmeans = KMeans.fit(sample, args.num_codes, args.seed)
    out.mkdir(parents=True, exist_ok=True)
    kmeans.save(out / "kmeans.npy")
    logging.info("%d codes from %d frames", args.num_codes, len(sample))
    switch_cost = None
    if args.segments == "codes":
        some = [kmeans.distances(x) for x in fitted[:SWITCH_COST_UTTERANCES]]
        switch_cost = fit_switch_cost(some, args.target_rate)

    for name, (path, data) in dirs.items():
        utts = list(data.wav)
        labels = run_jobs(
            functools.partial(label, spec=spec, kmeans=kmeans, switch_cost=switch_cost),
            [data.wav[u] for u in utts],
            nj=args.nj,
            label=f"targets {name}",
        )
        codes = {u: x[0] for u, x in zip(utts, labels, strict=True)}
        write_table(out / name / "targets", {u: _line(x) for u, x in codes.items()})
        frames = sum(map(len, codes.values()))
        facts = {"utterances": len(utts), "frames": frames, "num_codes": args.num_codes}
        if args.segments != "none":
            ends = {u: x[1] for u, x in zip(utts, labels, strict=True)}
            if args.segments == "data":
                ends = {u: known_segments(data, u, len(codes[u]), path) for u in utts}
            lines = {u: _line(x) for u, x in ends.items() if x is not None}
            write_table(out / name / "boundaries", lines)
            segments = sum(len(x) for x in ends.values() if x is not None)
            facts["segment_ms"] = FRAME_MS * frames / segments
        write_text(out / name / "facts.json", json.dumps(facts) + "\n")
        logging.info("%s: %s", name, facts)


def _line(values: np.ndarray) -> str:
    return " ".join(map(str, values.tolist()))


if __name__ == "__main__":
    main()
