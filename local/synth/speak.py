"""One utterance of the synth corpus: spoken, recorded mildly, written to disk.

An utterance depends on its own job only, so any number of processes in any order
gives the same corpus. Beside ``utt.flac`` lies ``utt.lab`` with the phones; it is
written last and names the job that made it, which is how a re-run knows what to keep.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from espnet_ofa.data.audio import audio_info, resample, write_audio
from espnet_ofa.files import write_text
from synth.espeak import SILENCE, synthesise
from synth.voices import Voice

SAMPLE_RATE = 16000
_RECIPE_VERSION = 1  # raise when the audio of the same job changes


@dataclass(frozen=True)
class Job:
    """What to say, who says it, where it goes."""

    utt: str
    text: str
    voice: Voice
    seed: tuple[int, ...]
    path: Path

    @property
    def fingerprint(self) -> str:
        """Changes when anything changes that can be heard."""
        said = (_RECIPE_VERSION, self.text, astuple(self.voice), self.seed)
        return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Segments:
    """Phones that tile an utterance.

    Attributes:
        num_samples: length of the audio at 16 kHz.
        phones: labels, ``sil`` for silence.
        ends: seconds, increasing; the last one is the end of the audio.
    """

    num_samples: int
    phones: tuple[str, ...]
    ends: tuple[float, ...]


def record(job: Job) -> tuple[np.ndarray, Segments]:
    """Speaks a job: jittered prosody, silences, a noise floor, a random level.

    Returns:
        wave: (L,) float32 at 16 kHz, within [-1, 1].
        segments: the true phone boundaries of that wave.
    """
    rng = np.random.default_rng(job.seed)
    prosody = job.voice.prosody(rng)
    speech = synthesise(job.text.lower(), prosody, seed=int(rng.integers(2**31)))
    voiced = resample(
        speech.wave.astype(np.float32) / 32768, speech.sample_rate, SAMPLE_RATE
    )
    before, after = (round(SAMPLE_RATE * s) for s in rng.uniform(0.05, 0.25, 2))
    clean = np.pad(voiced, (before, after))
    level = np.sqrt(np.mean(np.square(voiced)))
    snr_db = rng.uniform(15, 40)
    noise = _pink(len(clean), rng) * level * 10 ** (-snr_db / 20)
    wave = clean + noise
    peak = 10 ** (rng.uniform(-12, -1) / 20)
    wave *= peak / np.abs(wave).max()

    # Silence before and after joins the pauses that espeak-ng makes itself.
    phones = list(speech.phones)
    ends = [before + end * (SAMPLE_RATE / speech.sample_rate) for end in speech.ends]
    if phones[0] != SILENCE:
        phones, ends = [SILENCE, *phones], [float(before), *ends]
    if phones[-1] != SILENCE:
        phones, ends = [*phones, SILENCE], [*ends, 0.0]
    ends[-1] = float(len(wave))
    seconds = tuple(round(float(end) / SAMPLE_RATE, 6) for end in ends)
    return wave.astype(np.float32), Segments(len(wave), tuple(phones), seconds)


def _pink(length: int, rng: np.random.Generator) -> np.ndarray:
    """(length,) noise of unit power whose power falls with frequency, as rooms do."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum /= np.sqrt(np.arange(len(spectrum)) + 10.0)
    noise = np.fft.irfft(spectrum, length)
    return noise / np.sqrt(np.mean(np.square(noise)))


def make(job: Job) -> Segments:
    """Writes a job's audio and label file, unless both are there already."""
    kept = _read_label(job)
    if kept is not None:
        return kept
    wave, segments = record(job)
    write_audio(job.path, wave, SAMPLE_RATE)
    lines = [f"# {job.fingerprint} {segments.num_samples}"]
    lines += [
        f"{end:.6f} {phone}"
        for end, phone in zip(segments.ends, segments.phones, strict=True)
    ]
    write_text(job.path.with_suffix(".lab"), "\n".join(lines) + "\n")
    return segments


def _read_label(job: Job) -> Segments | None:
    """The segments of a finished job; None where it must be made (again)."""
    try:
        head, *lines = job.path.with_suffix(".lab").read_text().splitlines()
        mark, fingerprint, num_samples = head.split()
        rows = [line.split() for line in lines]
        segments = Segments(
            int(num_samples),
            tuple(phone for _, phone in rows),
            tuple(float(end) for end, _ in rows),
        )
        valid = mark == "#" and fingerprint == job.fingerprint
        valid = valid and audio_info(job.path).frames == segments.num_samples
    except (OSError, ValueError):  # nothing there, or not what we write
        return None
    return segments if valid else None
