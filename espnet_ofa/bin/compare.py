r"""One figure and one table of several tasks' reports.

    python -m espnet_ofa.bin.compare --models ofa --out exp/comparison \
        --tasks "CTC ASR=exp/report_systems:test" "keywords=exp/report_kws:test"

Each task is a folder that ``espnet_ofa.bin.report`` wrote, and a test set in it.
Systems of one frame period are crosses, and stand in the table beside what each model
has at that period. A model may be several systems, one for each lambda: ``--models ofa
ofa_at`` makes a curve of ``ofa_at_0``, ``ofa_at_0.5`` and so on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from espnet_ofa.bin.errors import one_line
from espnet_ofa.report.comparison import Task, read_task, write_comparison


def get_parser() -> argparse.ArgumentParser:
    """Command line options."""
    parser = argparse.ArgumentParser(
        description="Several tasks in one figure and one table",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        required=True,
        metavar="NAME=REPORT:TEST_SET",
        help="title, folder of a report, and which test set of it",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=["ofa"],
        help="systems of many frame periods; NAME_0.5, say, is a point of NAME",
    )
    parser.add_argument("--out", required=True, help="folder to write")
    return parser


def parse_task(text: str, models: Sequence[str]) -> Task:
    """``NAME=REPORT:TEST_SET``.

    Raises:
        ValueError: malformed; or see :func:`espnet_ofa.report.comparison.read_task`.
    """
    name, equals, rest = text.partition("=")
    report, colon, test_set = rest.rpartition(":")
    if not (name and equals and report and colon and test_set):
        raise ValueError(f"--tasks must be NAME=REPORT:TEST_SET; got {text!r}")
    return read_task(name, report, test_set, models)


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Command line."""
    args = get_parser().parse_args(cmd)
    tasks = [parse_task(text, args.models) for text in args.tasks]
    print(write_comparison(args.out, tasks, args.models))


if __name__ == "__main__":
    main()
