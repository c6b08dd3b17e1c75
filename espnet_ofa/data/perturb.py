"""Speed perturbation of a data directory (Ko et al., Interspeech 2015).

The audio is resampled, so speed and pitch change together, as with ``sox speed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_ofa.data.audio import (
    AudioFormat,
    audio_info,
    is_finished,
    read_mono,
    resample,
    resampled_length,
    write_audio,
)
from espnet_ofa.data.boundaries import Segmentation
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.parallel import run_jobs


@dataclass(frozen=True)
class _Job:
    source: Path
    out: Path
    factor: float


def perturbed_id(name: str, factor: float) -> str:
    """Kaldi's name of a perturbed utterance or speaker: ``sp0.9-name``."""
    return name if factor == 1.0 else f"sp{factor:g}-{name}"


def perturb_speed(
    data: DataDir,
    factors: Sequence[float],
    audio_dir: Path,
    *,
    audio_format: AudioFormat = "flac",
    nj: int = 1,
) -> DataDir:
    """One copy of every utterance per factor; factor 1 is the original itself.

    Args:
        data: what to perturb.
        factors: above 1 is faster and shorter: the duration is divided by the factor.
        audio_dir: where the new audio goes, as ``sp0.9/speaker/utterance.flac``.
        audio_format: of the new audio.
        nj: processes.

    Returns:
        All copies; segment boundaries are scaled with their audio, ``num_samples`` is
        exact.

    Raises:
        ValueError: a factor twice or not positive. AudioError: unreadable audio.
    """
    if not factors or len(set(factors)) != len(factors) or min(factors) <= 0:
        raise ValueError(
            f"speed factors {list(factors)}: expected different numbers above 0"
        )
    audio_dir = audio_dir.resolve()
    copies: list[DataDir] = []
    for factor in factors:
        if factor == 1.0:
            copies.append(data)
            continue
        jobs = [
            _Job(
                source=Path(data.wav[utt]),
                out=audio_dir
                / f"sp{factor:g}"
                / data.utt2spk[utt]
                / f"{perturbed_id(utt, factor)}.{audio_format}",
                factor=factor,
            )
            for utt in data.utterances
        ]
        lengths = run_jobs(_perturb_file, jobs, nj=nj, label=f"speed {factor:g}")
        copies.append(_renamed(data, factor, jobs, lengths))
    return DataDir.combine(copies)


def _perturb_file(job: _Job) -> tuple[int, int]:
    """Writes one perturbed file; returns its samples and its rate in hertz."""
    info = audio_info(job.source)
    rate_in = info.sample_rate * job.factor  # played faster, then sampled as before
    frames = resampled_length(info.frames, rate_in, info.sample_rate)
    if not is_finished(job.out, job.source, info.sample_rate, frames):
        wave, rate = read_mono(job.source)
        write_audio(job.out, resample(wave, rate_in, rate), rate)
    return frames, info.sample_rate


def _renamed(
    data: DataDir, factor: float, jobs: list[_Job], lengths: list[tuple[int, int]]
) -> DataDir:
    new = {utt: perturbed_id(utt, factor) for utt in data.utterances}
    made = dict(zip(data.utterances, lengths, strict=True))
    boundaries = data.boundaries and {
        new[utt]: _scaled(segmentation, factor, *made[utt])
        for utt, segmentation in data.boundaries.items()
    }
    return DataDir(
        wav={
            new[utt]: str(job.out)
            for utt, job in zip(data.utterances, jobs, strict=True)
        },
        utt2spk={new[u]: perturbed_id(spk, factor) for u, spk in data.utt2spk.items()},
        text=data.text and {new[utt]: text for utt, text in data.text.items()},
        num_samples=data.num_samples
        and {new[utt]: frames for utt, (frames, _) in made.items()},
        boundaries=boundaries,
    )


def _scaled(
    segmentation: Segmentation, factor: float, frames: int, sample_rate: int
) -> Segmentation:
    ends = segmentation.scaled(1 / factor).ends
    # the audio's length is a whole number of samples, the last end must agree with it
    ends = np.append(ends[:-1], frames / sample_rate)
    return Segmentation(ends, segmentation.phones)
