"""CMU AN4 as published: ``etc/`` lists, and ``wav/`` or ``raw/`` audio."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from corpus_report import SAMPLE_RATE, CorpusReport, check_files
from espnet_ofa.data.audio import write_audio
from espnet_ofa.data.kaldi_dir import DataDir

_LINE = re.compile(r"^(?:<s>)?\s*(.*?)\s*(?:</s>)?\s*\(([^()\s]+)\)$")
_SUFFIXES = (".sph", ".wav", ".flac", ".ogg", ".raw")


def find_root(corpus_dir: Path, split: str) -> Path | None:
    """The directory whose ``etc`` has the transcripts of a split, if there is one."""
    for place in (corpus_dir, corpus_dir / "an4"):
        if (place / "etc" / f"an4_{split}.transcription").is_file():
            return place.resolve()
    return None


def read_split(
    root: Path,
    split: str,
    report: CorpusReport,
    *,
    audio_dir: Path | None = None,
    nj: int = 1,
) -> DataDir:
    """Reads AN4's own ``train`` or ``test`` split.

    Utterance ``an251-fash-b`` of speaker ``fash`` becomes ``fash-an251-b``.

    Args:
        root: holds ``etc`` and ``wav`` or ``raw``.
        split: ``train`` or ``test``.
        report: gets what is missing or damaged.
        audio_dir: where headerless ``.raw`` audio (16-bit, big-endian, 16 kHz) goes as
            flac; not needed for the other formats.
        nj: processes that decode audio.

    Raises:
        ValueError: there is ``.raw`` audio and no ``audio_dir``.
        FileNotFoundError: the split's lists are not there.
    """
    places = dict(_file_ids(root, split))
    texts = _transcripts(root, split, report)
    wav: dict[str, str] = {}
    text: dict[str, str] = {}
    for name, words in sorted(texts.items()):
        if name not in places:
            report.problem("transcript without an entry in fileids", name)
            continue
        utt, _ = _kaldi_ids(name)
        found = _find_audio(root, places[name])
        if found is None:
            report.problem(
                "transcript without audio", f"{root}/wav/{places[name]}.* or raw/"
            )
            continue
        if found.suffix == ".raw":
            if audio_dir is None:
                raise ValueError(
                    f"{found} has no header: give --audio_dir for flac copies"
                )
            found = _convert_raw(found, audio_dir / split / f"{utt}.flac", report)
        if found is not None:
            wav[utt], text[utt] = str(found), words
    for name in sorted(places.keys() - texts.keys()):
        report.problem("fileids entry without a transcript", name)
    good = check_files(wav, report, nj=nj)
    return DataDir(
        wav={utt: wav[utt] for utt in sorted(good)},
        utt2spk={utt: utt.split("-")[0] for utt in sorted(good)},
        text={utt: text[utt] for utt in sorted(good)},
    )


def _kaldi_ids(name: str) -> tuple[str, str]:
    """``an251-fash-b`` to (utterance ``fash-an251-b``, speaker ``fash``)."""
    sentence, speaker, microphone = name.split("-")
    return f"{speaker}-{sentence}-{microphone}", speaker


def _file_ids(root: Path, split: str) -> list[tuple[str, str]]:
    """(name, path below wav/ without suffix) of a split."""
    path = root / "etc" / f"an4_{split}.fileids"
    return [
        (line.rsplit("/", 1)[-1], line) for line in path.read_text().split() if line
    ]


def _transcripts(root: Path, split: str, report: CorpusReport) -> dict[str, str]:
    path = root / "etc" / f"an4_{split}.transcription"
    texts: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.match(line.strip())
        where = f"{path}, line {number}"
        if match is None or match.group(2).count("-") != 2:
            report.problem("line that is no transcript", f"{where}: {line[:60]!r}")
        elif not match.group(1):
            report.problem("empty transcript", f"{where}: {match.group(2)}")
        elif match.group(2) in texts:
            report.problem("transcript given twice", f"{where}: {match.group(2)}")
        else:
            texts[match.group(2)] = match.group(1).upper()
    return texts


def _find_audio(root: Path, place: str) -> Path | None:
    for folder in ("wav", "raw", "sph"):
        for suffix in _SUFFIXES:
            path = root / folder / f"{place}{suffix}"
            if path.is_file():
                return path
    return None


def _convert_raw(source: Path, out: Path, report: CorpusReport) -> Path | None:
    """Big-endian 16-bit samples to flac."""
    data = source.read_bytes()
    if not data or len(data) % 2:
        report.problem("unreadable audio", f"{source}: {len(data)} bytes, not 16-bit")
        return None
    if not (out.is_file() and out.stat().st_mtime >= source.stat().st_mtime):
        wave = np.frombuffer(data, ">i2").astype(np.float32) / 32768
        write_audio(out, wave, SAMPLE_RATE)
    return out.resolve()
