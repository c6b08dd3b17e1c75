"""The LibriSpeech layout: ``SPK/CHAPTER/SPK-CHAPTER-UTT.flac`` and trans.txt."""

from __future__ import annotations

from pathlib import Path

from corpus_report import CorpusReport, check_files
from espnet_ofa.data.kaldi_dir import DataDir

AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")

# Utterances of the published parts (OpenSLR 12 and 31).
FULL_SIZES = {
    "dev-clean": 2703,
    "dev-other": 2864,
    "test-clean": 2620,
    "test-other": 2939,
    "train-clean-100": 28539,
    "train-clean-360": 104014,
    "train-other-500": 148688,
    "train-clean-5": 1519,
    "dev-clean-2": 1089,
}


def find_part(corpus_dir: Path, part: str) -> Path:
    """The directory of a part: below the corpus, below LibriSpeech/, or itself.

    Raises:
        FileNotFoundError: names the places that were searched.
    """
    places = [corpus_dir / part, corpus_dir / "LibriSpeech" / part]
    if corpus_dir.name == part:
        places.append(corpus_dir)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"{part} is not in {corpus_dir}; searched: {', '.join(map(str, places))}"
    )


def read_part(part_dir: Path, report: CorpusReport, *, nj: int = 1) -> DataDir:
    """Reads one part and checks it file by file.

    Args:
        part_dir: holds the speakers' directories.
        report: gets what is missing, left over, doubled or damaged.
        nj: processes that decode audio.

    Returns:
        The utterances that are whole.

    Raises:
        FileNotFoundError: no transcripts at all below ``part_dir``.
    """
    part_dir = part_dir.resolve()
    texts = _read_transcripts(part_dir, report)
    if not texts:
        raise FileNotFoundError(
            f"{part_dir}: no SPK/CHAPTER/SPK-CHAPTER.trans.txt below it: "
            "is this a corpus in the LibriSpeech layout?"
        )
    audio = _find_audio(part_dir, report)
    for utt in sorted(texts.keys() - audio.keys()):
        speaker, chapter, _ = utt.split("-")
        report.problem(
            "transcript without audio", f"{part_dir / speaker / chapter / utt}.*"
        )
    for utt in sorted(audio.keys() - texts.keys()):
        report.problem("audio without transcript", str(audio[utt]))
    both = {utt: str(audio[utt]) for utt in sorted(audio.keys() & texts.keys())}
    good = check_files(both, report, nj=nj)
    full = FULL_SIZES.get(part_dir.name)
    if full is not None and len(good) != full:
        report.note(
            "not the published size",
            f"{part_dir}: {len(good)} of {full} utterances; speakers or chapters are "
            "missing whole, unless this is a subset",
        )
    return DataDir(
        wav={utt: both[utt] for utt in sorted(good)},
        utt2spk={utt: utt.split("-")[0] for utt in sorted(good)},
        text={utt: texts[utt] for utt in sorted(good)},
    )


def _read_transcripts(part_dir: Path, report: CorpusReport) -> dict[str, str]:
    texts: dict[str, str] = {}
    for path in sorted(part_dir.glob("*/*/*.trans.txt")):
        prefix = path.name.removesuffix(".trans.txt")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            utt, _, text = line.strip().partition(" ")
            where = f"{path}, line {number}"
            if not utt:
                continue
            if not utt.startswith(f"{prefix}-") or utt.count("-") != 2:
                report.problem("id that does not fit its file", f"{where}: {utt}")
            elif utt in texts:
                report.problem("transcript given twice", f"{where}: {utt}")
            elif not text.strip():
                report.problem("empty transcript", f"{where}: {utt}")
            else:
                texts[utt] = text.strip().upper()
    for chapter in sorted(part_dir.glob("*/*/")):
        if chapter.is_dir() and not any(chapter.glob("*.trans.txt")):
            report.problem("chapter without trans.txt", str(chapter))
    return texts


def _find_audio(part_dir: Path, report: CorpusReport) -> dict[str, Path]:
    audio: dict[str, Path] = {}
    for path in sorted(part_dir.glob("*/*/*")):
        if path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        if path.stem in audio:
            report.problem("audio given twice", f"{path} and {audio[path.stem]}")
        else:
            audio[path.stem] = path
    return audio
