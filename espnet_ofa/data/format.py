"""Bring the audio of a data directory to one sample rate, mono, one file format."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from espnet_ofa.data.audio import (
    AudioError,
    AudioFormat,
    audio_info,
    is_finished,
    read_mono,
    resample,
    resampled_length,
    write_audio,
)
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.parallel import run_jobs
from espnet_ofa.data.table import DataError

_TOLERANCE = 0.01  # seconds between the last segment's end and the audio's


@dataclass(frozen=True)
class _Job:
    source: Path
    out: Path
    sample_rate: int


@dataclass(frozen=True)
class _Formatted:
    path: str
    frames: int
    problem: str | None = None


def parse_sample_rate(text: str) -> int:
    """``16k``, ``16000`` or ``8k`` in hertz.

    Raises:
        ValueError: anything else.
    """
    number, factor = (text[:-1], 1000) if text.lower().endswith("k") else (text, 1)
    try:
        rate = round(float(number) * factor)
    except ValueError:
        rate = 0
    if rate <= 0:
        raise ValueError(f"sample rate {text!r}: expected hertz or kilohertz, like 16k")
    return rate


def format_audio(
    data: DataDir,
    audio_dir: Path,
    *,
    sample_rate: int = 16000,
    audio_format: AudioFormat = "flac",
    nj: int = 1,
) -> DataDir:
    """Writes the audio as it is wanted and counts its samples.

    A file that is already mono, of that rate and format, is used where it lies.
    Files that an earlier run finished are kept.

    Args:
        data: any audio that libsndfile reads (flac, wav, ogg, opus, mp3, sph).
        audio_dir: where new files go, as ``speaker/utterance.flac``.
        sample_rate: hertz.
        audio_format: of the new files.
        nj: processes.

    Raises:
        DataError: audio that cannot be read, or segments that do not end with their
            audio, utterance by utterance.
    """
    audio_dir = audio_dir.resolve()
    jobs = [
        _Job(
            source=Path(data.wav[utt]).resolve(),
            out=audio_dir / data.utt2spk[utt] / f"{utt}.{audio_format}",
            sample_rate=sample_rate,
        )
        for utt in data.utterances
    ]
    made = dict(
        zip(
            data.utterances,
            run_jobs(_format_file, jobs, nj=nj, label="format"),
            strict=True,
        )
    )
    problems: list[str] = []
    for utt, one in made.items():
        seconds = one.frames / sample_rate
        end = data.boundaries[utt].ends[-1] if data.boundaries else seconds
        if one.problem:
            problems.append(f"wav.scp: {utt}: {one.problem}")
        elif abs(end - seconds) > _TOLERANCE:
            problems.append(
                f"boundaries: {utt} ends at {end:.3f} s, its audio at {seconds:.3f} s: "
                "make or scale the segments for this audio"
            )
    if problems:
        raise DataError("format", problems)
    return replace(
        data,
        wav={utt: one.path for utt, one in made.items()},
        num_samples={utt: one.frames for utt, one in made.items()},
    )


def _format_file(job: _Job) -> _Formatted:
    try:
        info = audio_info(job.source)
        wanted = (job.sample_rate, 1, job.out.suffix[1:])
        if (info.sample_rate, info.channels, info.format) == wanted:
            return _Formatted(str(job.source), info.frames)
        frames = resampled_length(info.frames, info.sample_rate, job.sample_rate)
        if not is_finished(job.out, job.source, job.sample_rate, frames):
            wave, rate = read_mono(job.source)
            write_audio(job.out, resample(wave, rate, job.sample_rate), job.sample_rate)
        return _Formatted(str(job.out), frames)
    except AudioError as error:  # collected, so that one run names every bad file
        return _Formatted(str(job.source), 0, str(error))
