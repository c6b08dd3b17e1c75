"""Makes the scripts in ``local/`` importable, and small corpora to prepare."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

LOCAL = Path(__file__).parents[2] / "local"
sys.path.insert(0, str(LOCAL))  # as it is when a script there is run by its path

SPEAKERS = ("19", "26", "32")


@pytest.fixture
def write_noise() -> Callable[..., None]:
    """Writes noise to an audio file; 0.3 s, like nothing but itself."""

    def write(path: Path, rate: int = 16000, **options: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = list(path.name.encode())
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, int(0.3 * rate))
        sf.write(path, noise, rate, **options)

    return write


@pytest.fixture
def make_corpus(tmp_path: Path, write_noise) -> Callable[..., Path]:
    """Makes ``corpus/PART`` in the LibriSpeech layout: 3 speakers x 2 chapters x 3."""

    def make(part: str = "some-part", suffix: str = "flac") -> Path:
        for speaker in SPEAKERS:
            for chapter in ("7", "8"):
                folder = tmp_path / "corpus" / part / speaker / chapter
                lines = []
                for index in range(3):
                    utt = f"{speaker}-{chapter}-{index:04d}"
                    subtype = {"subtype": "OPUS"} if suffix == "ogg" else {}
                    write_noise(folder / f"{utt}.{suffix}", **subtype)
                    lines.append(f"{utt} WORDS OF {speaker}\n")
                path = folder / f"{speaker}-{chapter}.trans.txt"
                path.write_text("".join(lines))
        return tmp_path / "corpus"

    return make
