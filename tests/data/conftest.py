"""A small data directory of real audio files, made on the fly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from espnet_ofa.data.boundaries import Segmentation
from espnet_ofa.data.kaldi_dir import DataDir

TEXTS = ("ONE TWO", "THREE", "FOUR FIVE SIX", "SEVEN")


def chirp(seconds: float, rate: int) -> np.ndarray:
    """(L,) float32: a tone that rises from 200 to 1200 Hz."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (200 * time + 500 * time**2 / seconds)
    return (0.5 * np.sin(phase)).astype(np.float32)


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[..., DataDir]:
    """Makes a DataDir of four utterances of two speakers, 0.5 to 2 s."""

    def make(suffix: str = "flac", rate: int = 16000, channels: int = 1) -> DataDir:
        audio = tmp_path / "audio"
        audio.mkdir(exist_ok=True)
        wav, utt2spk, text, boundaries = {}, {}, {}, {}
        for index, words in enumerate(TEXTS):
            speaker = "anna" if index < 2 else "bert"
            utt = f"{speaker}-{index}"
            seconds = 0.5 * (index + 1)
            wave = chirp(seconds, rate)
            path = audio / f"{utt}.{suffix}"
            subtype = "OPUS" if suffix == "ogg" else None
            sf.write(path, np.stack([wave] * channels, axis=1), rate, subtype)
            wav[utt], utt2spk[utt], text[utt] = str(path), speaker, words
            ends = np.array([0.25 * seconds, 0.7 * seconds, seconds])
            boundaries[utt] = Segmentation(ends, ("sil", "a", "sil"))
        return DataDir(wav, utt2spk, text, None, boundaries)

    return make
