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
    """The directory of a part: in the corpus, in a folder of corpora, or itself.

    Args:
        corpus_dir: where to look.
        part: its name, or several, ``a|b``, of which the first that is there counts.

    Raises:
        FileNotFoundError: names the places that were searched.
    """
    folders = [corpus_dir, corpus_dir / "LibriSpeech", corpus_dir / "mini_librispeech"]
    folders += sorted(corpus_dir.glob("librispeech*"))
    names = part.split("|")
    places = [folder / name for name in names for folder in folders]
    if corpus_dir.name in names:
        places.append(corpus_dir)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"{part} is not in {corpus_dir}; searched: {', '.join(map(str, places))}"
    )


def read_part(
    part_dir: Path, report: CorpusReport, *, nj: int = 1, audio_only: bool = False
) -> DataDir:
    """Reads one part and checks it file by file.

    Args:
        part_dir: holds the speakers' directories.
        report: gets what is missing, left over, doubled or damaged.
        nj: processes that decode audio.
        audio_only: ignore transcripts, which need not be there.

    Returns:
        The utterances that are whole.

    Raises:
        FileNotFoundError: no transcripts (or no audio) at all below ``part_dir``.
    """
    part_dir = part_dir.resolve()
    texts = None if audio_only else _read_transcripts(part_dir, report)
    audio = _find_audio(part_dir, report)
    if not (audio if texts is None else texts):
        kind = ".trans.txt" if texts is not None else "-UTT.flac (.ogg, .wav, .mp3)"
        raise FileNotFoundError(
            f"{part_dir}: no SPK/CHAPTER/SPK-CHAPTER{kind} below it: "
            "is this a corpus in the LibriSpeech layout?"
        )
    _report_absent(part_dir, audio, texts, report)
    if texts is None:
        wanted = _well_named(audio, report)
    else:
        _report_unmatched(part_dir, audio, texts, report)
        wanted = audio.keys() & texts.keys()
    wav = {utt: str(audio[utt]) for utt in sorted(wanted)}
    good = sorted(check_files(wav, report, nj=nj))
    full = FULL_SIZES.get(part_dir.name)
    if full is not None and len(good) != full:
        report.note(
            "not the published size",
            f"{part_dir}: {len(good)} of {full} utterances; speakers or chapters are "
            "missing whole, unless this is a subset",
        )
    return DataDir(
        wav={utt: wav[utt] for utt in good},
        utt2spk={utt: utt.split("-")[0] for utt in good},
        text=None if texts is None else {utt: texts[utt] for utt in good},
    )


def _report_absent(
    part_dir: Path,
    audio: dict[str, Path],
    texts: dict[str, str] | None,
    report: CorpusReport,
) -> None:
    """Folders with nothing in them, and speakers who are listed but have no folder."""
    chapters = {path.parent for path in audio.values()}
    speakers = {chapter.parent.name for chapter in chapters}
    speakers |= {utt.split("-")[0] for utt in texts or ()}  # reported one by one
    folders = {path.name for path in part_dir.glob("[!.]*/")}
    for speaker in sorted(folders - speakers):
        report.problem("speaker's folder without audio", str(part_dir / speaker))
    if texts is None:  # with transcripts, those tell what is missing
        for chapter in sorted({*part_dir.glob("[!.]*/[!.]*/")} - chapters):
            report.problem("chapter without audio", str(chapter))
    for speaker in sorted(_listed_speakers(part_dir, folders) - folders):
        # A subset is a corpus too, and may lie beside the table of the whole.
        report.note("listed speaker who is missing", str(part_dir / speaker))


def _listed_speakers(part_dir: Path, folders: set[str]) -> set[str]:
    """The part's speakers, as far as the corpus' table beside it tells."""
    parts = _speaker_table(part_dir.parent)
    if part_dir.name in parts.values():
        return {speaker for speaker, part in parts.items() if part == part_dir.name}
    # Mini LibriSpeech's tables keep the names of the parts that it was taken from. One
    # that is about a single part and knows everybody here was cut to this one.
    if len({*parts.values()}) == 1 and folders <= parts.keys():
        return set(parts)
    return set()


def _speaker_table(corpus_dir: Path) -> dict[str, str]:
    """Speaker to part, empty without a table."""
    table: dict[str, str] = {}
    for name, separator, column in (
        ("SPEAKERS.TXT", "|", 2),  # ID | SEX | PART | ...
        ("utt_map.tsv", "\t", -1),  # AN4: SPK-CHAPTER-UTT first, the part last
    ):
        path = corpus_dir / name
        if path.is_file():
            for line in path.read_text("utf-8", errors="replace").splitlines():
                fields = [field.strip() for field in line.split(separator)]
                if len(fields) > 3 and fields[0][0:1] != ";":
                    table[fields[0].split("-")[0]] = fields[column]
    return table


def _report_unmatched(
    part_dir: Path, audio: dict[str, Path], texts: dict[str, str], report: CorpusReport
) -> None:
    for utt in sorted(texts.keys() - audio.keys()):
        speaker, chapter, _ = utt.split("-")
        report.problem(
            "transcript without audio", f"{part_dir / speaker / chapter / utt}.*"
        )
    for utt in sorted(audio.keys() - texts.keys()):
        report.problem("audio without transcript", str(audio[utt]))


def _well_named(audio: dict[str, Path], report: CorpusReport) -> set[str]:
    """Utterances named after their folders; elsewhere transcripts see to that."""
    good = set()
    for utt, path in audio.items():
        place = [path.parent.parent.name, path.parent.name]
        if utt.count("-") == 2 and utt.split("-")[:2] == place:
            good.add(utt)
        else:
            report.problem("audio not named SPK-CHAPTER-UTT as its folders", str(path))
    return good


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
