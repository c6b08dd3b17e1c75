"""Reading, resampling and writing audio files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile as sf
import soxr

from espnet_ofa.data.container import truncation
from espnet_ofa.files import write_file

AudioFormat = Literal["flac", "wav"]
AUDIO_FORMATS: tuple[AudioFormat, ...] = ("flac", "wav")


class AudioError(ValueError):
    """An audio file is missing, empty, truncated or not audio."""


@dataclass(frozen=True)
class AudioInfo:
    """The header of a file.

    Attributes:
        sample_rate: hertz.
        frames: samples per channel.
        channels: 1 is mono.
        format: libsndfile's name, lower case (``flac``, ``wav``, ``ogg``, ``mp3``).
    """

    sample_rate: int
    frames: int
    channels: int
    format: str


def audio_info(path: str | Path) -> AudioInfo:
    """Reads the header.

    Raises:
        AudioError: missing, zero bytes, not audio, no samples, or seen to be cut
            short (a truncated flac shows when it is decoded).
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: zero bytes")
    try:
        info = sf.info(path)
    except sf.SoundFileError as error:
        raise AudioError(f"{path}: not readable as audio ({_reason(error)})") from None
    if info.frames <= 0:
        raise AudioError(f"{path}: no samples")
    cut = truncation(path, info.format.lower())
    if cut is not None:
        raise AudioError(f"{path}: truncated: {cut}")
    return AudioInfo(info.samplerate, info.frames, info.channels, info.format.lower())


def read_mono(path: str | Path) -> tuple[np.ndarray, int]:
    """Decodes a whole file; several channels are averaged.

    Returns:
        wave: (L,) float32 in [-1, 1].
        sample_rate: hertz.

    Raises:
        AudioError: as :func:`audio_info`; or fewer samples than the header promises.
    """
    info = audio_info(path)
    try:
        wave, sample_rate = sf.read(path, dtype="float32", always_2d=True)
    except sf.SoundFileError as error:
        raise AudioError(f"{path}: truncated or damaged ({_reason(error)})") from None
    if len(wave) < info.frames:
        raise AudioError(
            f"{path}: truncated: {len(wave)} of {info.frames} samples can be decoded"
        )
    return wave.mean(axis=1), sample_rate


def check_audio(path: str | Path) -> AudioInfo:
    """Decodes a file to its end, which finds the truncated ones, and keeps the header.

    Raises:
        AudioError: as :func:`read_mono`.
    """
    read_mono(path)
    return audio_info(path)


def _reason(error: sf.SoundFileError) -> str:
    # soundfile prefixes the path, which our message already has
    return getattr(error, "error_string", None) or str(error)


def resampled_length(frames: int, rate_in: float, rate_out: float) -> int:
    """Samples that :func:`resample` gives: the same duration, rounded."""
    return max(1, round(frames * rate_out / rate_in))


def resample(wave: np.ndarray, rate_in: float, rate_out: float) -> np.ndarray:
    """Band-limited resampling (soxr HQ), length exactly :func:`resampled_length`.

    Args:
        wave: (L,) float32.
        rate_in: hertz; may be fictitious, which changes the speed.
        rate_out: hertz.
    """
    if rate_in == rate_out:
        return wave
    out = soxr.resample(wave, rate_in, rate_out)
    length = resampled_length(len(wave), rate_in, rate_out)
    # soxr's own rounding differs by a sample at most
    return np.pad(out, (0, max(0, length - len(out))))[:length]


def write_audio(path: str | Path, wave: np.ndarray, sample_rate: int) -> None:
    """Writes 16-bit audio in the format of the suffix; the file is whole or absent.

    Args:
        path: ``*.flac`` or ``*.wav``.
        wave: (L,) float32; clipped to [-1, 1].
        sample_rate: hertz.
    """
    clipped = np.clip(wave, -1.0, 1.0)
    write_file(path, lambda draft: sf.write(draft, clipped, sample_rate, "PCM_16"))


def is_finished(path: Path, source: Path, sample_rate: int, frames: int) -> bool:
    """Whether ``path`` is what an earlier run made of ``source`` as it is now."""
    try:
        if path.stat().st_mtime < source.stat().st_mtime:
            return False
        info = audio_info(path)
    except (AudioError, OSError):
        return False
    return (info.sample_rate, info.frames, info.channels) == (sample_rate, frames, 1)
