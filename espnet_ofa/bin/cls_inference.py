r"""Classify with ESPnet models over a grid of lambdas and test sets, in one process.

    python -m espnet_ofa.bin.cls_inference --test_set test:dump/raw/test \
        --system exp/cls/config.yaml exp/cls/valid.acc.ave.pth exp/cls/classify 0 0.5 1

``--system`` may be repeated, which saves the minute that ESPnet takes to start. Each
system, lambda and test set gets ``<output>/lam<value>/<test set>/`` with ``text``,
``score`` and ``stats.json`` (:class:`espnet_ofa.report.stats.DecodeStats`), which
``espnet_ofa.bin.report --metric accuracy`` reads. What is there is kept.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from espnet_ofa.bin.errors import one_line
from espnet_ofa.data.table import read_table
from espnet_ofa.files import write_text
from espnet_ofa.plugin import register
from espnet_ofa.report.budget import model_checksum
from espnet_ofa.report.classifying import Classifier, Guess, classify_test_set
from espnet_ofa.report.environment import cpu_name
from espnet_ofa.report.grid import TestSet, is_finished, parse_test_set, turn
from espnet_ofa.report.knob import OWN, squeeze_value
from espnet_ofa.report.stats import DecodeStats
from espnet_ofa.subsampling.rate import check_lam


class System(NamedTuple):
    """A trained model, where its results go, and the lambdas to classify at."""

    config: str
    model_file: str
    output_dir: Path
    lams: list[float | str]


def get_parser() -> argparse.ArgumentParser:
    """Command line options."""
    parser = argparse.ArgumentParser(
        description="Classify over a grid of lambdas",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--system",
        nargs="+",
        action="append",
        required=True,
        metavar="ARG",
        help="CONFIG CHECKPOINT OUTPUT_DIR LAMBDA...; a lambda is a number in [0, 2], "
        f"or `{OWN}` for the checkpoint's own. May be repeated",
    )
    parser.add_argument(
        "--test_set",
        action="append",
        required=True,
        help="NAME:DIR with DIR/wav.scp and DIR/text. May be repeated",
    )
    parser.add_argument(
        "--squeeze",
        nargs="+",
        type=squeeze_value,
        help="for stochastic models: one S,q,k or several, each with each lambda; "
        f"`{OWN}` is the checkpoint's",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=1,
        help="utterances at a time; 1 for a real-time factor of single requests",
    )
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU, 1: a GPU")
    return parser


def parse_system(words: Sequence[str]) -> System:
    """One ``--system``.

    Raises:
        ValueError: too few words, or a lambda that is none.
        FileNotFoundError: no such configuration or checkpoint.
    """
    if len(words) < 4:
        raise ValueError(
            "--system takes CONFIG CHECKPOINT OUTPUT_DIR and at least one lambda; got "
            f"{' '.join(words)}"
        )
    config, model_file, output_dir, *lams = words
    for path in (config, model_file):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; train the model first")
    try:
        values = [lam if lam == OWN else check_lam(float(lam)) for lam in lams]
    except ValueError as error:
        raise ValueError(f"--system {config}: a lambda is wrong: {error}") from None
    return System(config, model_file, Path(output_dir), values)


def find_test_sets(items: Sequence[str]) -> list[TestSet]:
    """Those of ``NAME:DIR``.

    Raises:
        ValueError: malformed.
        FileNotFoundError: DIR lacks ``wav.scp`` or ``text``.
    """
    sets = [parse_test_set(item) for item in items]
    for test_set in sets:
        for file in (test_set.index, test_set.index.with_name("text")):
            if not file.is_file():
                raise FileNotFoundError(
                    f"{file}: no such file; {test_set.name} needs one (recipe stage 2)"
                )
    return sets


def run_system(
    system: System,
    test_sets: Sequence[TestSet],
    batch_size: int,
    device: str,
    squeezes: Sequence[str] | None = None,
) -> None:
    """Classify every test set at every lambda and squeeze of one system."""
    classifier = Classifier(system.config, system.model_file, device)
    checksum = model_checksum(classifier.model)
    where = f"{cpu_name()} ({torch.get_num_threads()} threads)"
    if device == "cuda":
        where = torch.cuda.get_device_name()
    setup: dict[str, object] = {
        "batch_size": batch_size,
        "device": where,
        "model": system.model_file,
    }
    for point, facts in turn(classifier.model, system.lams, squeezes):
        for test_set in test_sets:
            folder, scp = system.output_dir / point / test_set.name, test_set.index
            inputs = [system.config, system.model_file, scp]
            if is_finished(folder, setup, checksum, scp, inputs):
                logging.info("%s is there; remove it to classify again", folder)
                continue
            stats = DecodeStats(
                test_set.name,
                **facts,
                parameters=classifier.parameters,
                reference=str(test_set.reference),
                model_sha256=checksum,
                setup=setup,
            )
            guesses = classify_test_set(classifier, read_table(scp), stats, batch_size)
            _write(folder, guesses)
            stats.save(folder)  # last: what has it is complete
            logging.info("%s: %.1f ms, RTF %.3f", folder, stats.period_ms, stats.rtf)


def _write(out: Path, guesses: dict[str, Guess]) -> None:
    labels = [f"{key} {guess.label}\n" for key, guess in guesses.items()]
    scores = [f"{key} {guess.score:.6f}\n" for key, guess in guesses.items()]
    write_text(out / "text", "".join(labels))
    write_text(out / "score", "".join(scores))


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Command line."""
    register()
    args = get_parser().parse_args(cmd)
    logging.basicConfig(
        level="INFO",
        format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s",
    )
    if args.ngpu not in (0, 1) or args.batch_size < 1:
        raise ValueError(
            f"--ngpu must be 0 or 1 and --batch_size at least 1; got {args.ngpu} and "
            f"{args.batch_size}"
        )
    systems = [parse_system(words) for words in args.system]
    test_sets = find_test_sets(args.test_set)
    device = "cuda" if args.ngpu else "cpu"
    for system in systems:
        run_system(system, test_sets, args.batch_size, device, args.squeeze)


if __name__ == "__main__":
    main()
