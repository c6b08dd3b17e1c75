"""Recognition end to end over lambda: where the time goes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espnet_ofa.bench.parts import PartTimer, wrap_recogniser
from espnet_ofa.bench.timing import Timing
from espnet_ofa.report.knob import LamKnob
from espnet_ofa.upstream.audio import read_wave

SEARCHES = ("greedy", "ctc", "joint")
MAX_TOKENS = -200.0  # a bound that does not depend on lambda


def decoder_options(
    config: str | Path, model_file: str | Path, search: str, beam_size: int = 10
) -> argparse.Namespace:
    """Options of ``espnet2.bin.asr_inference`` for one of the searches.

    Args:
        config: ``config.yaml`` of the training.
        model_file: checkpoint.
        search: ``greedy`` (best path of CTC), ``ctc`` (prefix beam search over CTC
            alone) or ``joint`` (CTC at 0.3 and the attention decoder).
        beam_size: of the beams.
    """
    import espnet2.bin.asr_inference as stock

    if search not in SEARCHES:
        raise ValueError(f"search must be one of {', '.join(SEARCHES)}; got {search!r}")
    args = stock.get_parser().parse_args(
        ["--output_dir=-", "--data_path_and_name_and_type=-,speech,sound"]
    )
    args.asr_train_config, args.asr_model_file = str(config), str(model_file)
    args.search = "greedy" if search == "greedy" else "beam"
    args.ctc_weight = {"greedy": 1.0, "ctc": 1.0, "joint": 0.3}[search]
    args.beam_size, args.maxlenratio = beam_size, MAX_TOKENS
    args.batch_size = 1
    if hasattr(args, "ctc_window_margin"):
        args.ctc_window_margin = 0  # as our own decoding has it: exact
    return args


def find_checkpoint(folder: str | Path, name: str | None = None) -> tuple[Path, Path]:
    """Config and checkpoint of a training folder: averaged, else best, else latest.

    Raises:
        FileNotFoundError: the config or any checkpoint is missing.
    """
    folder = Path(folder)
    config = folder / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(f"{config}: no such file; expected an ESPnet model")
    names = [name] if name else ["valid.*.ave.pth", "valid.*.best.pth", "*epoch.pth"]
    for pattern in names:
        found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
        if found:
            return config, found[-1]
    raise FileNotFoundError(f"{folder}: no checkpoint; looked for {', '.join(names)}")


def list_audio(source: str | Path, most: int) -> list[str]:
    """Audio files of a data directory's ``wav.scp``, spread over it; or one file.

    Raises:
        FileNotFoundError: no such file, or no ``wav.scp``.
        ValueError: it lists nothing, or commands, which only ESPnet's reader could run.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(
            f"{source}: no such file or folder; give audio files or data directories"
        )
    if source.is_file():
        return [str(source)]
    scp = source / "wav.scp"
    if not scp.is_file():
        raise FileNotFoundError(f"{scp}: no such file; expected a data directory")
    lines = scp.read_text(encoding="utf-8").splitlines()
    paths = [line.split(maxsplit=1)[1].strip() for line in lines if line.strip()]
    if not paths or any(path.endswith("|") for path in paths):
        raise ValueError(
            f"{scp}: expected a list of audio files, found "
            f"{'commands' if paths else 'nothing'}; format the audio first (stage 3)"
        )
    count = min(most, len(paths))
    return [paths[i * len(paths) // count] for i in range(count)]


def read_waves(paths: Sequence[str | Path], sample_rate: int = 16000) -> list[Tensor]:
    """(L,) samples of each audio file; raises as ``read_wave`` does."""
    return [torch.from_numpy(read_wave(path, sample_rate)) for path in paths]


def load_decoder(args: argparse.Namespace) -> Any:
    """A :class:`espnet_ofa.report.decoding.Decoder`, ESPnet's plugin registered."""
    from espnet_ofa.plugin import register

    register()
    from espnet_ofa.report.decoding import Decoder

    return Decoder(args)


def time_recognition(
    *,
    device: torch.device,
    config: str,
    model_file: str,
    audio: list[str],
    lams: list[float | str],
    searches: list[str],
    rounds: int,
    beam_size: int = 10,
) -> dict[str, Any]:
    """Decode the audio at each lambda with each search, in turns.

    Args:
        audio: files.
        lams: numbers, or ``own`` for a model without lambda.

    Returns:
        ``rows``: for each search and lambda the seconds (of all audio, median over the
        rounds), ``parts``: seconds by part, ``search`` among them, frame period and
        RTF; ``notes``: what is left out.
    """
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for search in searches:
        args = decoder_options(config, model_file, search, beam_size)
        args.ngpu = int(device.type == "cuda")
        decoder = load_decoder(args)
        missing = {"joint": "decoder", "greedy": "ctc", "ctc": "ctc"}[search]
        if getattr(decoder.model, missing) is None:
            notes.append(f"{search} is left out: the model has no {missing}")
            continue
        waves = [w.to(device) for w in read_waves(audio, decoder.sample_rate)]
        seconds = sum(map(len, waves)) / decoder.sample_rate
        runs, periods = _decode_in_turns(decoder, waves, lams, rounds, device)
        for lam in lams:
            total = Timing.of([sum(run.values()) for run in runs[lam]])
            parts = {
                part: Timing.of([run[part] for run in runs[lam]]).seconds
                for part in runs[lam][0]
            }
            rows.append(
                {
                    "search": search,
                    "lam": lam,
                    "period_ms": periods[lam],
                    "seconds": total.seconds,
                    "low": total.low,
                    "high": total.high,
                    "rtf": total.seconds / seconds,
                    "audio_seconds": seconds,
                    "parts": parts,
                }
            )
    return {"rows": rows, "notes": notes}


def _decode_in_turns(
    decoder: Any,
    waves: list[Tensor],
    lams: Sequence[float | str],
    rounds: int,
    device: torch.device,
) -> tuple[dict[Any, list[dict[str, float]]], dict[Any, float | None]]:
    """Seconds by part of each pass over the audio, and frame periods, by lambda."""
    timer = PartTimer(device)
    runs: dict[Any, list[dict[str, float]]] = {lam: [] for lam in lams}
    periods: dict[Any, float | None] = {}
    use_lam = LamKnob(decoder.model).use
    wrap_recogniser(timer, decoder.model)
    try:
        with timer.part("search"):  # so that the part is there, whatever comes first
            pass
        for turn in range(rounds + 1):
            for lam in lams:
                use_lam(lam)
                timer.reset()
                with decoder.meter as meter:
                    meter.reset()
                    for wave in waves if turn else waves[:1]:
                        with timer.part("search"):
                            decoder.search([wave])
                if turn:
                    runs[lam].append(dict(timer.seconds))
                    spent, units = meter.frame_seconds, meter.units
                    periods[lam] = 1000 * spent / units if spent else None
    finally:
        timer.unwrap()
    return runs, periods
