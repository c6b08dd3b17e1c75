"""Audio files as an upstream takes them: one channel, at 16 kHz."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from espnet_ofa.upstream.extractor import SAMPLE_RATE


def count_samples(path: str | Path, sample_rate: int = SAMPLE_RATE) -> int:
    """Samples of a file, by its header.

    Raises:
        FileNotFoundError: no such file.
        ValueError: names the file, which has another rate, several channels, no samples
            or no audio.
    """
    info = _read_header(path)
    if (info.samplerate, info.channels) != (sample_rate, 1) or not info.frames:
        raise ValueError(
            f"{path}: expected {sample_rate / 1000:g} kHz mono, found "
            f"{info.samplerate} Hz, {info.channels} channels, {info.frames} samples; "
            "resample it, or format the audio (a stage of each recipe)"
        )
    return info.frames


def read_wave(path: str | Path, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """(L,) float32 samples of a file; raises as :func:`count_samples` does."""
    count_samples(path, sample_rate)
    return soundfile.read(path, dtype="float32")[0]


def check_table(scp: str | Path, sample_rate: int = SAMPLE_RATE) -> None:
    """Check the rate of the first file of a ``wav.scp``, of however many channels.

    It stands for all: ESPnet's loader drops rates, but refuses files that differ in it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: names the file, which has another rate or is no audio; or the line,
            which names none.
    """
    with open(scp, encoding="utf-8") as lines:
        line = next(lines, "")
    if not line.strip():
        return
    key, *path = line.strip().split(maxsplit=1)
    if not path:
        raise ValueError(
            f"{scp}: {key}: expected the utterance's name and its audio file, found "
            "the name alone; format the audio again"
        )
    rate = _read_header(path[0]).samplerate
    if rate != sample_rate:
        raise ValueError(
            f"{path[0]}: expected {sample_rate / 1000:g} kHz, found {rate} Hz; "
            "resample it, or format the audio (a stage of each recipe)"
        )


def check_sounds(data: Iterable[tuple[str, str, str]], sample_rate: int) -> None:
    """:func:`check_table` of what ESPnet's (path, name, type) triples load as sound."""
    for path, _, kind in data:
        if kind == "sound":
            check_table(path, sample_rate)


def _read_header(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no such audio file; where a data directory names it, format the "
            "audio again"
        )
    try:
        return soundfile.info(str(path))
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: not readable as audio ({error})") from None
