"""Audio files as an upstream takes them: one channel, at 16 kHz."""

from __future__ import annotations

from pathlib import Path

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
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; format the audio again")
    try:
        info = soundfile.info(str(path))
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: not readable as audio ({error})") from None
    if (info.samplerate, info.channels) != (sample_rate, 1) or not info.frames:
        raise ValueError(
            f"{path}: expected {sample_rate / 1000:g} kHz mono, found "
            f"{info.samplerate} Hz, {info.channels} channels, {info.frames} samples; "
            "format the audio first (a stage of each recipe)"
        )
    return info.frames


def read_wave(path: str | Path, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """(L,) float32 samples of a file; raises as :func:`count_samples` does."""
    count_samples(path, sample_rate)
    return soundfile.read(path, dtype="float32")[0]


def check_table(scp: str | Path, sample_rate: int = SAMPLE_RATE) -> None:
    """Check the first file of a ``wav.scp``; raises as :func:`count_samples` does.

    It stands for all: ESPnet's loader drops rates, but refuses files that differ in it.
    """
    with open(scp, encoding="utf-8") as lines:
        line = next(lines, "")
    if line.strip():
        count_samples(line.split(maxsplit=1)[1].strip(), sample_rate)
