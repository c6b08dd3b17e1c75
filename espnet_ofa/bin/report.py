r"""Score decodings, tabulate them by lambda and draw the trade-off.

    python -m espnet_ofa.bin.report --expdir exp \
        --decode_dirs exp/asr/decode "adaptive=exp/asr_adaptive/decode" --out exp/report

Reads what ``espnet_ofa.bin.asr_inference --lam`` wrote or, with ``--metric accuracy``,
what ``espnet_ofa.bin.cls_inference`` wrote. Writes ``report.md``,
``report.csv``, ``report.json`` and a ``tradeoff_<test set>.png`` for each test set,
prints the table by lambda, and ends with the pictures' paths. Systems that are named
``name@seed`` are also shown as one, with mean and range.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_ofa.bin.errors import one_line
from espnet_ofa.report.accuracy import (
    accuracy_seeds_table,
    accuracy_table,
    collect_accuracy,
    write_accuracy_report,
)
from espnet_ofa.report.folder import write_report
from espnet_ofa.report.seeds import seeds_table
from espnet_ofa.report.tables import lambda_table
from espnet_ofa.report.tradeoff import Row, collect_rows, find_decode_dirs


def get_parser() -> argparse.ArgumentParser:
    """Command line options."""
    parser = argparse.ArgumentParser(
        description="Report what each lambda costs and gets right",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--expdir", default="exp", help="Folder of experiments")
    parser.add_argument(
        "--decode_dirs",
        nargs="+",
        metavar="[NAME=]DIR",
        help="--output_dir of each decoding, and the name it goes by; by default "
        "everything below --expdir",
    )
    parser.add_argument(
        "--test_set",
        action="append",
        default=[],
        metavar="NAME:DIR",
        help="Where the reference DIR/text is, if it moved since decoding",
    )
    parser.add_argument(
        "--ssl_stats", help="JSON with the measured frame period of pre-training"
    )
    parser.add_argument(
        "--readme",
        help="Write RESULTS between markers of this file as well, and the pictures to "
        "images/ beside it",
    )
    parser.add_argument(
        "--metric",
        choices=("wer", "accuracy"),
        default="wer",
        help="wer: words and characters, or phones; accuracy: one class per utterance",
    )
    parser.add_argument("--out", help="Where to write; <expdir>/report by default")
    return parser


def name_systems(
    expdir: str | Path, decode_dirs: Sequence[str] | None
) -> dict[str, Path]:
    """Names and folders of what to report.

    Raises:
        FileNotFoundError: nothing was decoded below ``expdir``.
        ValueError: two folders go by one name.
    """
    given = decode_dirs or [str(path) for path in find_decode_dirs(expdir)]
    systems: dict[str, Path] = {}
    for item in given:
        name, equals, folder = item.partition("=")
        if not equals:
            folder = item
            name = os.path.relpath(folder, expdir)
            name = folder if name.startswith("..") else name
        if name in systems:
            raise ValueError(
                f"--decode_dirs: {systems[name]} and {folder} both go by {name!r}; "
                "name them as NAME=DIR"
            )
        systems[name] = Path(folder)
    return systems


def find_references(test_sets: Sequence[str]) -> dict[str, str]:
    """``NAME:DIR`` to name -> ``DIR/text``.

    Raises:
        ValueError: malformed.
    """
    references = {}
    for item in test_sets:
        name, _, folder = item.partition(":")
        if not name or not folder:
            raise ValueError(f"--test_set must be NAME:DIR; got {item!r}")
        references[name] = str(Path(folder, "text"))
    return references


def read_facts(path: str | Path) -> Mapping[str, object]:
    """JSON object from pre-training.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; pre-training writes it")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return facts


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Command line."""
    args = get_parser().parse_args(cmd)
    references = find_references(args.test_set)
    classes = args.metric == "accuracy"
    collect = collect_accuracy if classes else collect_rows
    rows: list[Row] = []
    for name, folder in name_systems(args.expdir, args.decode_dirs).items():
        rows += collect(name, folder, references)
    ssl = None if args.ssl_stats is None else read_facts(args.ssl_stats)
    out = args.out or Path(args.expdir, "report")
    write = write_accuracy_report if classes else write_report
    plots = write(out, rows, ssl=ssl, readme=args.readme)
    print(accuracy_table(rows) if classes else lambda_table(rows, short=True))
    averages = accuracy_seeds_table(rows) if classes else seeds_table(rows)
    if averages:
        print(f"\n{averages}\n")
    for plot in plots:
        print(plot)


if __name__ == "__main__":
    main()
