#!/usr/bin/env python3
"""Shapes for pre-training, once every utterance is known to have fitting targets."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from espnet_ofa.data.table import DataError, read_table, write_table
from espnet_ofa.pretrain.segments import check_boundaries
from espnet_ofa.upstream.extractor import frame_lengths


def check_targets(data: Path, targets: Path, segments: str) -> dict[str, str]:
    """Samples per utterance of a data directory whose targets fit.

    Args:
        data: formatted directory with ``utt2num_samples``.
        targets: what ssl_targets wrote for it.
        segments: ``none``, or ``boundaries`` must be there as well.

    Raises:
        DataError: names every utterance without targets or with too many or too few,
            or whose segments do not end with its audio.
    """
    samples = read_table(data / "utt2num_samples")
    names = ["targets"] + ([] if segments == "none" else ["boundaries"])
    tables = {name: read_table(targets / name) for name in names}
    problems = []
    for name, table in tables.items():
        for utt in sorted(samples.keys() - table.keys()):
            problems.append(f"{targets}/{name}: {utt} is missing: run stage 6 again")
    for utt, codes in tables["targets"].items():
        if utt not in samples:
            continue  # more targets than needed do no harm
        frames = frame_lengths(int(samples[utt]))
        found = len(codes.split())
        if found != frames:
            problems.append(
                f"{targets}/targets: {utt} has {found} targets, its audio {frames} "
                "frames: run stage 6 again"
            )
    for utt, ends in tables.get("boundaries", {}).items():
        if utt not in samples:
            continue
        try:
            name = f"{targets}/boundaries: {utt}"
            frames = frame_lengths(int(samples[utt]))
            check_boundaries(np.array(ends.split(), int), frames, name)
        except ValueError as error:
            problems.append(f"{error}: run stage 6 again")
    if problems:
        raise DataError(data, problems)
    return samples


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", metavar="NAME:DATA_DIR:TARGETS_DIR")
    parser.add_argument("--segments", default="codes")
    parser.add_argument("--output_dir", required=True, type=Path)
    args = parser.parse_args()
    for item in args.sets:
        name, data, targets = item.split(":")
        samples = check_targets(Path(data), Path(targets), args.segments)
        write_table(args.output_dir / name / "speech_shape", samples)
        print(f"{name}: {len(samples)} utterances have targets")


if __name__ == "__main__":
    main()
