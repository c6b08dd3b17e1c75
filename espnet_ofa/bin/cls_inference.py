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
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch

from espnet_ofa.data.table import read_table
from espnet_ofa.files import write_text
from espnet_ofa.plugin import register
from espnet_ofa.report.budget import model_checksum
from espnet_ofa.report.classifying import Classifier, Guess, classify_test_set
from espnet_ofa.report.environment import cpu_name
from espnet_ofa.report.knob import OWN, squeeze_value
from espnet_ofa.report.stats import STATS_NAME, DecodeStats, load_stats
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
    values = [lam if lam == OWN else check_lam(float(lam)) for lam in lams]
    return System(config, model_file, Path(output_dir), values)


def find_test_sets(items: Sequence[str]) -> dict[str, Path]:
    """``NAME:DIR`` to name -> DIR.

    Raises:
        ValueError: malformed.
        FileNotFoundError: DIR lacks ``wav.scp`` or ``text``.
    """
    sets = {}
    for item in items:
        name, _, folder = item.partition(":")
        if not name or not folder or "/" in name:
            raise ValueError(f"--test_set must be NAME:DIR; got {item!r}")
        for file in ("wav.scp", "text"):
            if not Path(folder, file).is_file():
                raise FileNotFoundError(
                    f"{folder}/{file}: no such file; {name} needs one (recipe stage 2)"
                )
        sets[name] = Path(folder)
    return sets


def run_system(
    system: System,
    test_sets: dict[str, Path],
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
    for lam, squeeze in product(system.lams, squeezes or [OWN]):
        value, start = classifier.use_lam(lam)
        setting = classifier.use_squeeze(squeeze)
        label = OWN if lam == OWN else f"{float(lam):g}"
        if squeezes:
            label += f"-squeeze{squeeze}"
        for name, folder in test_sets.items():
            out = system.output_dir / f"lam{label}" / name
            inputs = [system.config, system.model_file, folder / "wav.scp"]
            if _finished(out, setup, inputs):
                logging.info("%s is there; remove it to classify again", out)
                continue
            stats = DecodeStats(
                name,
                lam=value,
                adaptive=start is not None,
                lam_start=start,
                squeeze=setting,
                parameters=classifier.parameters,
                reference=str(folder / "text"),
                model_sha256=checksum,
                setup=dict(setup),
            )
            wavs = read_table(folder / "wav.scp")
            guesses = classify_test_set(classifier, wavs, stats, batch_size)
            _write(out, guesses)
            stats.save(out)  # last: what has it is complete
            message = "%s: lambda %s, %s: %.1f ms, RTF %.3f"
            numbers = stats.period_ms, stats.rtf
            logging.info(message, system.output_dir, label, name, *numbers)


def _finished(
    out: Path, setup: dict[str, object], inputs: Sequence[str | Path]
) -> bool:
    """Classified before in the same way, and no input is newer."""
    marker = out / STATS_NAME
    if not marker.is_file() or load_stats(out).setup != setup:
        return False
    made = marker.stat().st_mtime
    return all(Path(path).stat().st_mtime <= made for path in inputs)


def _write(out: Path, guesses: dict[str, Guess]) -> None:
    labels = [f"{key} {guess.label}\n" for key, guess in guesses.items()]
    scores = [f"{key} {guess.score:.6f}\n" for key, guess in guesses.items()]
    write_text(out / "text", "".join(labels))
    write_text(out / "score", "".join(scores))


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
