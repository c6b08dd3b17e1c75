#!/usr/bin/env python3
"""Classes of a training set as ESPnet's token list: one per line, then ``<unk>``."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from espnet_ofa.data.table import DataError, read_table
from espnet_ofa.files import write_text

UNKNOWN = "<unk>"  # the last, which ESPnet counts as no class


def read_labels(path: Path) -> dict[str, str]:
    """Utterance to class.

    Raises:
        DataError: names every utterance whose text is not one word.
    """
    labels = read_table(path)
    wrong = [
        f"{utt}: expected one class, one word; found {label!r}"
        for utt, label in labels.items()
        if len(label.split()) != 1 or label == UNKNOWN
    ]
    if wrong:
        raise DataError(path, wrong)
    return labels


def find_classes(train: Path, others: list[Path]) -> list[str]:
    """Classes of ``train``, sorted.

    Raises:
        DataError: fewer than two, or another set has a class that is not among them.
    """
    classes = sorted(set(read_labels(train).values()))
    if len(classes) < 2:
        raise DataError(train, [f"only one class: {classes}; expected two or more"])
    for path in others:
        unseen = Counter(read_labels(path).values())
        problems = [
            f"{count} utterances of class {label}, which {train} does not have"
            for label, count in sorted(unseen.items())
            if label not in classes
        ]
        if problems:
            raise DataError(path, problems)
    return classes


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="Kaldi text")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="the same")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    try:
        classes = find_classes(args.train, args.others)
    except DataError as error:
        raise SystemExit(f"error: {error}") from None
    write_text(args.output, "".join(f"{name}\n" for name in [*classes, UNKNOWN]))
    print(f"{args.output}: {len(classes)} classes")


if __name__ == "__main__":
    main()
