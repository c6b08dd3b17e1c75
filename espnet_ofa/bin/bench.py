r"""Time ourselves beside what people would use instead, and what lambda costs here.

    python -m espnet_ofa.bin.bench operator  --out benchmarks/results
    python -m espnet_ofa.bin.bench upstream  --layers 2 --dtype int8 --batch 8
    python -m espnet_ofa.bin.bench asr       --asr exp/asr_ctc --audio dump/raw/test
    python -m espnet_ofa.bin.bench streaming --chunk_ms 320 --left 4
    python -m espnet_ofa.bin.bench onnx      --layers 2
    python -m espnet_ofa.bin.bench train     --config conf/upstream.yaml
    python -m espnet_ofa.bin.bench calibrate --upstream exp/ssl/upstream --audio a.wav

All but the last write ``NAME.json``, ``NAME.md`` and pictures into ``--out``; all
sides of a comparison run in turns in one process, several fresh processes after one
another. ``calibrate`` writes ``calibration.json`` beside the model, which
``lam="auto"`` reads. ``--quick`` takes tiny sizes, to see that all of it runs.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_ofa.bench import plots, tables
from espnet_ofa.bench.baselines import find_baselines
from espnet_ofa.bench.calibrate import (
    LAMS,
    calibrate_recogniser,
    calibrate_upstream,
)
from espnet_ofa.bench.hubert import BASE, TINY, YARDSTICK
from espnet_ofa.bench.operator import BOUNDED, OURS, Point, points
from espnet_ofa.bench.processes import run_fresh
from espnet_ofa.bench.recognition import (
    SEARCHES,
    decoder_options,
    find_checkpoint,
    list_audio,
    load_decoder,
    read_waves,
)
from espnet_ofa.bench.results import facts, merge, notes, page, roofline_lines, save
from espnet_ofa.bin.errors import one_line
from espnet_ofa.report.budget import CALIBRATION_NAME, save_calibration, search_setup
from espnet_ofa.subsampling.rate import check_lam
from espnet_ofa.upstream import OFAUpstream

STUDIES = ("sides", "lambda", "length", "memory")


def _number(text: str) -> float:
    try:
        return check_lam(float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _lam(text: str) -> float | str:
    return text if text == "own" else _number(text)


def get_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shown = argparse.ArgumentDefaultsHelpFormatter

    def add(name: str, run: Callable[..., None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, formatter_class=shown)
        command.set_defaults(run=run)
        command.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
        command.add_argument("--rounds", type=int, default=5, help="turns of each side")
        command.add_argument("--quick", action="store_true", help="tiny sizes")
        return command

    def add_fresh(command: argparse.ArgumentParser) -> None:
        command.add_argument("--out", default="benchmarks/results", help="folder")
        command.add_argument("--name", help="of the files; by default from the options")
        command.add_argument("--processes", type=int, default=3, help="fresh ones")
        cores = len(os.sched_getaffinity(0))
        command.add_argument("--threads", type=int, default=cores)
        command.add_argument(
            "--allocator",
            choices=["default", "keep"],
            default="keep",
            help="keep: glibc keeps memory that is freed, for all sides; default: as "
            "the system has it",
        )
        command.add_argument(
            "--most_seconds",
            type=float,
            default=20.0,
            help="no more turns for a side that has had so long",
        )

    operator = add("operator", run_operator, "CIF beside other implementations")
    add_fresh(operator)
    operator.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    operator.add_argument("--studies", nargs="+", choices=STUDIES, default=[*STUDIES])

    upstream = add("upstream", run_upstream, "whole encoders beside HuBERT")
    add_fresh(upstream)
    upstream.add_argument("--dtype", default="fp32", choices=("fp32", "bf16", "int8"))
    upstream.add_argument("--layers", type=int, default=12, help="2: DistilHuBERT's")
    upstream.add_argument(
        "--mode",
        default="eager",
        choices=("eager", "graphs"),
        help="of optimize(); graphs: CUDA graphs, of the baselines too",
    )
    upstream.add_argument("--batch", type=int, default=1)
    upstream.add_argument("--seconds", type=float, default=15.0)
    upstream.add_argument(
        "--mixed", action="store_true", help="utterances from a third of it to all"
    )
    upstream.add_argument("--extractors", nargs="+", default=["logmel", "slim", "conv"])
    upstream.add_argument("--lams", type=_number, nargs="+", default=[0.0, 0.643, 1.0])
    upstream.add_argument(
        "--growth", type=float, nargs="*", default=[], help="also these lengths in s"
    )

    asr = add("asr", run_asr, "recognition: where the time goes")
    add_fresh(asr)
    _add_model(asr)
    asr.add_argument("--lams", type=_lam, nargs="+", default=[0.0, 0.643, 0.857, 1.0])
    asr.add_argument("--searches", nargs="+", choices=SEARCHES, default=[*SEARCHES])
    asr.add_argument("--beam_size", type=int, default=10)

    streaming = add("streaming", run_streaming, "an upstream on a stream")
    add_fresh(streaming)
    streaming.add_argument("--dtype", default="fp32", choices=("fp32", "bf16", "int8"))
    streaming.add_argument("--layers", type=int, default=12)
    streaming.add_argument("--seconds", type=float, default=15.0)
    streaming.add_argument("--chunk_ms", type=int, default=320)
    streaming.add_argument("--left", type=int, default=4, help="chunks seen before")
    streaming.add_argument("--lams", type=_number, nargs="+", default=[0.0, 0.643, 1.0])

    onnx = add("onnx", run_onnx, "an upstream in ONNX Runtime, on a CPU")
    add_fresh(onnx)
    onnx.add_argument("--layers", type=int, default=12)
    onnx.add_argument("--extractor", default="logmel")
    onnx.add_argument(
        "--dtypes", nargs="+", choices=("fp32", "int8"), default=["fp32", "int8"]
    )
    onnx.add_argument("--seconds", type=float, default=15.0)
    onnx.add_argument("--lams", type=_number, nargs="+", default=[0.0, 0.643, 1.0])

    train = add("train", run_train, "training throughput and memory")
    add_fresh(train)
    train.add_argument("--config", help="of an upstream, YAML; base log-mel if none")
    train.add_argument("--batch", type=int, default=8)
    train.add_argument("--seconds", type=float, default=15.0)
    train.add_argument("--autocast", action="store_true", help="bf16")
    train.add_argument(
        "--lams", type=_number, nargs="+", default=[0.0, 0.643, 0.857, 1.0]
    )

    calibrate = add("calibrate", run_calibrate, "the table behind lam='auto'")
    calibrate.add_argument("--upstream", help="directory or hub id")
    calibrate.add_argument(
        "--optimize",
        metavar="DTYPE",
        help="price the upstream after optimize(): fp32, bf16 or int8",
    )
    _add_model(calibrate)
    calibrate.add_argument("--search", choices=SEARCHES, default="greedy")
    calibrate.add_argument("--beam_size", type=int, default=10)
    calibrate.add_argument("--lams", type=_number, nargs="+", default=[*LAMS])
    calibrate.add_argument(
        "--out", help=f"file; by default {CALIBRATION_NAME} beside the model"
    )
    return parser


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--asr", help="folder of an ESPnet training")
    command.add_argument("--asr_model_file", help="its checkpoint, by name")
    command.add_argument(
        "--audio", nargs="+", required=True, help="audio files or data directories"
    )
    command.add_argument(
        "--utterances", type=int, default=8, help="of each data directory"
    )


def _fresh(args: argparse.Namespace, job: dict[str, Any], once: bool = False) -> list:
    return run_fresh(
        {"device": args.device, **job},
        processes=1 if once else args.processes,
        threads=args.threads,
        allocator="release" if job["kind"] == "memory" else args.allocator,
    )


def _limits(args: argparse.Namespace) -> dict[str, Any]:
    return {"rounds": args.rounds, "most_seconds": args.most_seconds}


def _about(args: argparse.Namespace, **setup: Any) -> dict[str, Any]:
    names = ("device", "threads", "allocator", "processes", "rounds")
    return facts(**{name: getattr(args, name) for name in names}, **setup)


def _finish(
    args: argparse.Namespace,
    name: str,
    title: str,
    about: dict[str, Any],
    content: dict[str, Any],
    blocks: Sequence[str],
    plot: Callable[[Path], Path] | None,
) -> None:
    """Write table, numbers and, where there are curves, a picture; print the table."""
    name = args.name or name
    if plot is not None:
        picture = plot(Path(args.out, f"{name}.png"))
        blocks = [*blocks, f"![{title}]({picture.name})"]
    text = page(title, about, *blocks)
    save(args.out, name, {"about": about, **content}, text)
    print(text)


def _ceilings(args: argparse.Namespace) -> dict[str, Any]:
    limits = {"rounds": 1, "most_seconds": 0.2} if args.quick else {}
    (found,) = _fresh(args, {"kind": "roofline", **limits}, once=True)
    return found


def run_operator(args: argparse.Namespace) -> None:
    """``bench operator``."""
    chosen = [asdict(p) for p in points(args.quick) if p.study in args.studies]
    job = {"kind": "operator", "dtype": args.dtype, "points": chosen}
    found = merge(_fresh(args, {**job, **_limits(args)}), "points")
    base = Point(2, 60, 16) if args.quick else Point(8, 800, 768)
    others, left_out = find_baselines()
    memory = []
    for backward in (False, True) if "memory" in args.studies else ():
        for side in (OURS, BOUNDED, *others):
            point = {**asdict(base), "backward": backward}
            job = {"kind": "memory", "side": side, "point": point, "dtype": args.dtype}
            memory += _fresh(args, job, once=True)
    ceilings = _ceilings(args)
    curves = {"lambda", "length"} & {*args.studies}
    _finish(
        args,
        f"operator-{args.device}-{args.dtype}",
        "Continuous integrate-and-fire",
        _about(args, dtype=args.dtype),
        {"points": found, "memory": memory, "roofline": ceilings},
        [
            notes(left_out),
            roofline_lines(ceilings),
            *tables.operator_blocks(found, memory),
        ],
        (lambda path: plots.plot_operator(found, path)) if curves else None,
    )


def run_upstream(args: argparse.Namespace) -> None:
    """``bench upstream``."""
    shape = TINY if args.quick else BASE
    seconds = min(args.seconds, 2.0) if args.quick else args.seconds
    names = ("dtype", "layers", "extractors", "lams", "batch", "mixed", "mode")
    setup = {name: getattr(args, name) for name in names} | {"seconds": seconds}
    job = {"kind": "upstream", "shape": shape, **setup, **_limits(args)}
    answers = _fresh(args, job)
    sides = merge(answers, "sides")
    base = next((s["seconds"] for s in sides if s["name"] == YARDSTICK), None)
    for side in sides:  # of medians, as all ratios
        side["speedup"] = base and base / side["seconds"]
    growth: dict[str, Any] = {}
    if args.growth:
        job = {"kind": "growth", "shape": shape, "layers": args.layers}
        job |= {"seconds": args.growth, "lams": args.lams, **_limits(args)}
        (growth,) = _fresh(args, job, once=True)
    ceilings = _ceilings(args)
    mixed = "-mixed" if args.mixed else ""
    title = (
        f"Encoders, {args.layers} layers, {args.dtype}, batch {args.batch}{mixed}, "
        f"{seconds:g} s"
    )
    _finish(
        args,
        f"upstream-{args.device}-{args.dtype}-l{args.layers}-b{args.batch}{mixed}"
        + ("-graphs" if args.mode == "graphs" else ""),
        title,
        _about(args, **setup),
        {"sides": sides, "growth": growth, "roofline": ceilings},
        [
            notes(answers[0]["notes"]),
            roofline_lines(ceilings),
            *tables.encoder_blocks(sides, ceilings, args.dtype, growth),
        ],
        lambda path: plots.plot_encoders(sides, path, title),
    )


def _audio(args: argparse.Namespace) -> list[str]:
    return [a for source in args.audio for a in list_audio(source, args.utterances)]


def run_asr(args: argparse.Namespace) -> None:
    """``bench asr``."""
    if args.asr is None:
        raise SystemExit("bench asr needs --asr, the folder of an ESPnet training")
    config, model_file = find_checkpoint(args.asr, args.asr_model_file)
    if args.quick:
        args.utterances, args.beam_size = min(args.utterances, 2), 2
    names = ("lams", "searches", "beam_size", "rounds")
    setup = {name: getattr(args, name) for name in names}
    job = {"kind": "asr", "config": str(config), "model_file": str(model_file)}
    job |= {"audio": _audio(args), **setup}
    answers = _fresh(args, job)
    rows = merge(answers, "rows")
    if not rows:
        raise SystemExit(f"{config}: {'; '.join(answers[0]['notes'])}")
    del setup["rounds"]
    _finish(
        args,
        f"asr-{args.device}",
        "Recognition: where the time goes",
        _about(args, model=model_file.name, utterances=len(job["audio"]), **setup)
        | {"audio (s)": round(rows[0]["audio_seconds"], 1)},
        {"rows": rows},
        [notes(answers[0]["notes"]), tables.parts_table(rows)],
        lambda path: plots.plot_parts(rows, path),
    )


def run_streaming(args: argparse.Namespace) -> None:
    """``bench streaming``."""
    setup = {name: getattr(args, name) for name in ("dtype", "layers", "lams")}
    setup["seconds"] = min(args.seconds, 2.0) if args.quick else args.seconds
    setup["chunk"] = {"ms": args.chunk_ms, "left": args.left}
    job = {"kind": "streaming", "shape": TINY if args.quick else BASE}
    rows = merge(_fresh(args, {**job, **setup, "rounds": args.rounds}), "rows")
    _finish(
        args,
        f"streaming-{args.device}-{args.dtype}-l{args.layers}",
        "An upstream on a stream",
        _about(args, **setup),
        {"rows": rows},
        [tables.streaming_table(rows)],
        None,
    )


def run_onnx(args: argparse.Namespace) -> None:
    """``bench onnx``."""
    if args.device != "cpu":
        raise SystemExit("bench onnx is for --device cpu")
    setup = {
        name: getattr(args, name) for name in ("layers", "extractor", "lams", "dtypes")
    }
    setup["seconds"] = min(args.seconds, 2.0) if args.quick else args.seconds
    job = {"kind": "onnx", "shape": TINY if args.quick else BASE}
    rows = merge(_fresh(args, {**job, **setup, **_limits(args)}), "rows")
    _finish(
        args,
        f"onnx-{args.extractor}-l{args.layers}",
        "An upstream in ONNX Runtime",
        _about(args, **setup, onnxruntime=metadata.version("onnxruntime")),
        {"rows": rows},
        [tables.onnx_table(rows)],
        None,
    )


def run_train(args: argparse.Namespace) -> None:
    """``bench train``."""
    config: dict[str, Any] = {"extractor": "logmel"}
    if args.config:
        config = yaml.safe_load(Path(args.config).read_text(encoding="utf-8"))
    if args.quick:
        config |= {**TINY, "layers": 2, "pos_kernel": 8, "pos_groups": 2}
        args.batch, args.seconds = min(args.batch, 2), min(args.seconds, 2.0)
    names = ("batch", "seconds", "lams", "autocast")
    setup = {name: getattr(args, name) for name in names}
    job = {"kind": "train", "config": config, "rounds": args.rounds, **setup}
    rows = merge(_fresh(args, job), "rows")
    _finish(
        args,
        f"train-{args.device}",
        "Training an upstream with CTC",
        _about(args, **setup, config=config),
        {"rows": rows},
        [tables.training_table(rows)],
        lambda path: plots.plot_training(rows, path),
    )


def run_calibrate(args: argparse.Namespace) -> None:
    """``bench calibrate``."""
    if (args.asr is None) == (args.upstream is None):
        raise SystemExit("bench calibrate needs one of --asr and --upstream")
    audio = _audio(args)
    if args.quick:
        audio, args.rounds, args.lams = audio[:1], 1, [0.0, 0.5, 1.0]
    device = torch.device(args.device)
    if args.upstream is not None:
        upstream = OFAUpstream.from_pretrained(args.upstream).to(device)
        if args.optimize:
            upstream.optimize(device, args.optimize)
        waves = [wave.to(device) for wave in read_waves(audio)]
        found = calibrate_upstream(upstream, waves, args.lams, args.rounds)
        folder = Path(args.upstream)
    else:
        config, model_file = find_checkpoint(args.asr, args.asr_model_file)
        options = decoder_options(config, model_file, args.search, args.beam_size)
        options.ngpu = int(args.device == "cuda")
        decoder = load_decoder(options)
        waves = [w.to(device) for w in read_waves(audio, decoder.sample_rate)]
        found = calibrate_recogniser(
            decoder, waves, args.lams, args.rounds, search_setup(options)
        )
        folder = Path(args.asr)
    if args.out is None and not folder.is_dir():
        raise SystemExit(f"{folder} is no directory to write into; give --out FILE")
    path = save_calibration(found, args.out or folder / CALIBRATION_NAME)
    print(tables.price_table([asdict(price) for price in found.prices]))
    print(path)


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Command line."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: no CUDA device was found here")
    args.run(args)


if __name__ == "__main__":
    main()
