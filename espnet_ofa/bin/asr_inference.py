r"""Decode with ESPnet over lambdas or squeezes and test sets, in one process.

    python -m espnet_ofa.bin.asr_inference --asr_train_config exp/asr/config.yaml \
        --asr_model_file exp/asr/valid.cer_ctc.ave.pth --output_dir exp/asr/decode \
        --config conf/decode_asr.yaml --lam 0 0.5 0.9 --test_set test:dump/raw/test

All options of ``espnet2.bin.asr_inference`` mean what they mean there; without
``--lam``, ``--squeeze``, ``--test_set`` and ``--search greedy`` this *is* that program.
With any of them, each lambda and test set gets ``<output_dir>/lam<value>/<test set>/``
with ``text``, ``token``, ``token_int``, ``score`` and ``stats.json``
(:class:`espnet_ofa.report.stats.DecodeStats`); with ``--squeeze``, each lambda and
squeeze ``lam<value>-squeeze<S,q,k>``. ``--model_tag`` may then also be a directory or a
zip, and a download is compared with its checksums.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import espnet2.bin.asr_inference as stock
import torch
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed

from espnet_ofa.bin.errors import one_line
from espnet_ofa.files import write_text
from espnet_ofa.plugin import register
from espnet_ofa.report.budget import (
    AUTO,
    CALIBRATION_NAME,
    find_calibration,
    lam_for_budget,
    machine,
    model_checksum,
    search_setup,
)
from espnet_ofa.report.cost import count_parameters
from espnet_ofa.report.decoding import Decoded, Decoder, decode_test_set
from espnet_ofa.report.environment import cpu_name
from espnet_ofa.report.grid import TestSet, is_finished, parse_test_set, turn
from espnet_ofa.report.knob import OWN, squeeze_value
from espnet_ofa.report.stats import DecodeStats
from espnet_ofa.subsampling.rate import check_lam
from espnet_ofa.upstream.importers.source import read_weights
from espnet_ofa.zoo.pull import pull_asr, speech2text_options

_BUDGET = ("max_rtf", "max_macs_per_second", "calibration")
# Options that name inputs and outputs, or that leave results as they are.
_NOT_SETUP = {
    *("config", "lam", "squeeze", "test_set", "key_file"),
    *("data_path_and_name_and_type", "output_dir", "log_level", "num_workers"),
    *("ngpu", "allow_variable_data_keys"),
    *("asr_train_config", "asr_model_file", "model_tag"),
    *_BUDGET,
}


def lam_value(text: str) -> float | str:
    """``--lam``: a number in [0, 2], ``own`` or ``auto``."""
    if str(text) in (OWN, AUTO):
        return str(text)
    try:
        return check_lam(float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected numbers in [0, 2], `{OWN}` or `{AUTO}`; got {text!r} ({error})"
        ) from error


def get_parser() -> argparse.ArgumentParser:
    """ESPnet's parser and our options."""
    parser = stock.get_parser()
    for action in parser._actions:  # --test_set can take its place
        if action.dest == "data_path_and_name_and_type":
            action.required = False
    group = parser.add_argument_group("Frame period related")
    group.add_argument(
        "--lam",
        nargs="+",
        type=lam_value,
        help="One lambda or several (0: every frame). They override the checkpoint's, "
        f"which stays as it is; `{OWN}` decodes at the checkpoint's own lambda, "
        f"`{AUTO}` at the least that fits --max_rtf or --max_macs_per_second",
    )
    group.add_argument(
        "--squeeze",
        nargs="+",
        type=squeeze_value,
        help="For a stochastic model: one S,q,k or several, each with each --lam. They "
        f"override the checkpoint's; `{OWN}` decodes at that",
    )
    group.add_argument(
        "--max_rtf", type=float, help="Real-time factor, encoder and search, to keep to"
    )
    group.add_argument(
        "--max_macs_per_second", type=float, help="Or MACs of the encoder"
    )
    group.add_argument(
        "--calibration",
        help=f"What each lambda costs, from `bench calibrate`; by default "
        f"{CALIBRATION_NAME} beside --asr_model_file",
    )
    group.add_argument(
        "--search",
        choices=("beam", "greedy"),
        default="beam",
        help="beam: ESPnet's search. greedy: best path of CTC, --batch_size at a time",
    )
    group.add_argument(
        "--test_set",
        action="append",
        help="NAME:DIR with DIR/wav.scp and, for references, DIR/text. May be "
        "repeated; takes the place of --data_path_and_name_and_type",
    )
    # Where ESPnet has this option it is an approximation that counts encoder outputs,
    # so its meaning would change with lambda. 0 is exact.
    parser.set_defaults(**{name: None for name in _margin(parser)})
    return parser


def _margin(parser: argparse.ArgumentParser) -> list[str]:
    dests = [action.dest for action in parser._actions]
    return [name for name in ("ctc_window_margin",) if name in dests]


def find_test_sets(args: argparse.Namespace) -> list[TestSet]:
    """The test sets that the options name.

    Raises:
        ValueError: none, both ways at once, or a malformed ``--test_set``.
        FileNotFoundError: no ``wav.scp``.
    """
    given = args.data_path_and_name_and_type or []
    if bool(given) == bool(args.test_set):
        raise ValueError("give one of --test_set and --data_path_and_name_and_type")
    sets = []
    if given:
        folder = Path(given[0][0]).parent
        sets.append(TestSet(folder.name, [tuple(item) for item in given]))
    for item in args.test_set or []:
        sets.append(parse_test_set(item))
    for test_set in sets:
        if not test_set.index.is_file():
            raise FileNotFoundError(
                f"{test_set.index}: no such file; {test_set.name} needs an scp file "
                "that lists its audio (recipe stage 3 writes it)"
            )
    return sets


def check_options(args: argparse.Namespace) -> None:
    """Refuse what would mislead or cannot work.

    Raises:
        ValueError: says which option and what to give instead.
    """
    for name in ("streaming", "enh_s2t_task", "multi_asr"):
        if getattr(args, name):
            raise ValueError(
                f"--{name} does not go with --lam, --squeeze, --test_set or greedy"
            )
    budgets = [args.max_rtf, args.max_macs_per_second]
    if (AUTO in (args.lam or [])) != any(budget is not None for budget in budgets):
        raise ValueError(
            f"--lam {AUTO} goes with one of --max_rtf and --max_macs_per_second"
        )
    if args.ngpu > 1:
        raise ValueError(f"--ngpu must be 0 or 1 for decoding; got {args.ngpu}")
    if args.search == "greedy":
        return
    if args.batch_size > 1:
        raise ValueError("--batch_size above 1 goes with --search greedy only")
    if (args.lam or args.squeeze) and args.maxlenratio >= 0:
        raise ValueError(
            f"--maxlenratio {args.maxlenratio:g} bounds hypotheses by the number of "
            "units, so a longer frame period would cut them off; give a constant "
            "maximum in tokens as a negative number, e.g. --maxlenratio -200"
        )


def _setup(args: argparse.Namespace, decoder: Decoder) -> dict[str, object]:
    """What a reader must know to decode in the same way."""
    setup: dict[str, object] = dict(search_setup(args))
    if decoder.device.type == "cuda":
        setup["device"] = torch.cuda.get_device_name(decoder.device)
    else:
        setup["device"] = f"{cpu_name()} ({torch.get_num_threads()} threads)"
    setup["model"] = str(args.model_tag or args.asr_model_file)
    # All others where they were asked for: nobody reads a list of ESPnet's defaults.
    parser = get_parser()
    for name, value in vars(args).items():
        asked = name not in setup and value != parser.get_default(name)
        if asked and name not in _NOT_SETUP:
            setup[name] = value
    return setup


def resolve_lam(
    args: argparse.Namespace, decoder: Decoder, lam: float | str
) -> float | str:
    """A number for ``auto``, others as they are.

    Raises:
        ValueError: no budget, a calibration of something else, or one that nothing
            fits; see :mod:`espnet_ofa.report.budget`.
    """
    if lam != AUTO:
        return lam
    source = args.calibration or Path(args.asr_model_file).parent
    timed = args.max_rtf is not None
    prices = find_calibration(
        source,
        model_checksum(decoder.model),
        setup=search_setup(args) if timed else None,
        here=machine(decoder.device) if timed else None,
    )
    chosen = lam_for_budget(
        prices, max_rtf=args.max_rtf, max_macs_per_second=args.max_macs_per_second
    )
    chosen = math.ceil(1e4 * chosen) / 1e4  # names a folder; rounded to the cheap side
    logging.info("lambda %g fits the budget", chosen)
    return chosen


def decode_grid(args: argparse.Namespace) -> None:
    """Decode every test set at every lambda and squeeze; the model is loaded once.

    Raises:
        ValueError: see :func:`check_options` and :func:`find_test_sets`; also a number
            for ``--lam`` where nothing in the model compresses, or a ``--squeeze`` that
            it was not made for.
    """
    check_options(args)
    test_sets = find_test_sets(args)
    lams = [lam_value(lam) for lam in args.lam or [OWN]]
    squeezes = args.squeeze and [squeeze_value(squeeze) for squeeze in args.squeeze]
    set_all_random_seed(args.seed)
    decoder = Decoder(args)
    setup = _setup(args, decoder)
    model_sha256 = model_checksum(read_weights(Path(args.asr_model_file)))
    parameters = count_parameters(decoder.model)
    models = [args.asr_train_config, args.asr_model_file, args.lm_file]

    def resolve(lam: float | str) -> float | str:
        return resolve_lam(args, decoder, lam)

    for point, facts in turn(decoder.model, lams, squeezes, resolve):
        for test_set in test_sets:
            folder = Path(args.output_dir, point, test_set.name)
            inputs = [*filter(None, [*models, test_set.index, test_set.reference])]
            keys = Path(args.key_file or test_set.index)
            if is_finished(folder, setup, model_sha256, keys, inputs):
                logging.info("%s is there; remove it to decode again", folder)
                continue
            reference = None if test_set.reference is None else str(test_set.reference)
            stats = DecodeStats(
                test_set.name,
                **facts,
                parameters=parameters,
                reference=reference,
                phones=decoder.phones,
                model_sha256=model_sha256,
                setup=setup,
            )
            results = decode_test_set(decoder, args, test_set, stats)
            for name in ("text", "token", "token_int", "score"):
                write_text(folder / name, _kaldi_lines(results, name))
            stats.save(folder)  # last: what has it is complete
            logging.info("%s: %.1f ms, RTF %.3f", folder, stats.period_ms, stats.rtf)


def _kaldi_lines(results: dict[str, Decoded], name: str) -> str:
    """One line per utterance with the field ``name``."""
    lines = []
    for key, found in results.items():
        value = getattr(found, name)
        if isinstance(value, list):
            value = " ".join(map(str, value))
        lines.append(f"{key} {value}".rstrip() + "\n")
    return "".join(lines)


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Command line."""
    register()
    print(stock.get_commandline_args(), file=sys.stderr)
    parser = get_parser()
    args = parser.parse_args(cmd)
    ours = args.lam or args.squeeze or args.test_set or args.search == "greedy"
    for name in _margin(parser):
        if getattr(args, name) is None:
            value = 0 if ours else stock.get_parser().get_default(name)
            setattr(args, name, value)
    if ours:
        logging.basicConfig(
            level=args.log_level,
            format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s",
        )
        with ExitStack() as stack:
            if args.model_tag is not None:
                packed = speech2text_options(pull_asr(args.model_tag))
                vars(args).update(stack.enter_context(packed))
            decode_grid(args)
        return
    if not args.data_path_and_name_and_type:
        parser.error("give --data_path_and_name_and_type or --test_set")
    options = vars(args)
    for name in ("config", "lam", "squeeze", "search", "test_set", *_BUDGET):
        options.pop(name)
    stock.inference(**options)


if __name__ == "__main__":
    main()
