#!/usr/bin/env python3
"""Makes data directories for keyword spotting from Google's Speech Commands.

Two layouts are read. The whole corpus (35 words, validation_list.txt,
testing_list.txt, _background_noise_): the lists decide what is for validation and
test; with --classes 12, the ten words of the usual task are classes of their own, as
many clips as they have on average are drawn from the other words (_unknown_) and cut
from the noise (_silence_). A folder with one folder per class and no lists, such as the
published test set of twelve classes: speakers are divided, so that nobody is on two
sides.

Every file is decoded; missing classes and damaged files are reported one by one, and
the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from corpus_report import CorpusReport, check_files, summary
from espnet_ofa.data.audio import AudioError, read_mono, resample, write_audio
from espnet_ofa.data.kaldi_dir import DataDir

SAMPLE_RATE = 16000
SETS = ("train", "valid", "test")
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE, NOISE = "_unknown_", "_silence_", "_background_noise_"
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
MARK = "_nohash_"
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
# Without lists: percent of the speakers; and of each noise file's length with them.
VALID_PERCENT, TEST_PERCENT = 10, 20


class Clip(NamedTuple):
    """One file: who says what, and the class that makes it."""

    utt: str
    speaker: str
    label: str
    path: Path


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--corpus_dir", type=Path, required=True)
    parser.add_argument(
        "--out_dir", type=Path, required=True, help="gets train, valid and test"
    )
    parser.add_argument(
        "--audio_dir", type=Path, required=True, help="for clips of silence"
    )
    parser.add_argument(
        "--classes",
        type=int,
        choices=(12, 35),
        default=12,
        help="12: ten words, _unknown_ and _silence_; 35: every word (whole corpus)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--nj", type=int, default=2, help="processes")
    parser.add_argument(
        "--skip_bad", action="store_true", help="leave bad files out and go on"
    )
    return parser


def find_root(corpus_dir: Path) -> Path:
    """The folder of the classes: the corpus, or in a folder of corpora.

    Raises:
        FileNotFoundError: names the places that were searched.
    """
    version = "speech_commands_v0.02"
    places = [corpus_dir, corpus_dir / version, corpus_dir / "SpeechCommands" / version]
    places += sorted(corpus_dir.glob("speech_commands*"))
    for place in places:
        if (place / KEYWORDS[0]).is_dir():
            return place.resolve()
    raise FileNotFoundError(
        f"no folder {KEYWORDS[0]} in {corpus_dir}; searched: "
        f"{', '.join(map(str, places))}"
    )


def read_class(folder: Path, report: CorpusReport) -> list[Clip]:
    """The clips of one folder; a class without any is a problem."""
    label = folder.name
    files = [p for p in folder.glob("[!.]*") if p.suffix.lower() in AUDIO_SUFFIXES]
    if not files:
        report.problem("class without audio", f"{folder}: no such folder, or empty")
    clips: dict[str, Clip] = {}
    for path in sorted(files):
        # The published test set doubles suffixes: x.wav.wav
        name = path.stem.removesuffix(path.suffix)
        speaker, mark, number = name.rpartition(MARK)
        if label == SILENCE:  # cuts of noise: nobody speaks
            speaker, number = "noise", name
        elif not mark or not number.isdigit():
            report.problem(f"file not named SPEAKER{MARK}NUMBER", str(path))
            continue
        word, _, speaker = speaker.rpartition("_")  # in _unknown_: WORD_SPEAKER
        utt = "-".join(filter(None, (speaker, label.strip("_"), word, number)))
        if utt in clips:
            report.problem("clip given twice", f"{path} and {clips[utt].path}")
        clips[utt] = Clip(utt, speaker, label, path)
    return list(clips.values())


def divide(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """By a number made of the speaker (of the clip, where nobody speaks)."""
    sets: dict[str, list[Clip]] = {name: [] for name in SETS}
    for clip in clips:
        who = clip.utt if clip.label == SILENCE else clip.speaker
        percent = zlib.crc32(who.encode()) % 100
        if percent < TEST_PERCENT:
            sets["test"].append(clip)
        elif percent < TEST_PERCENT + VALID_PERCENT:
            sets["valid"].append(clip)
        else:
            sets["train"].append(clip)
    return sets


def read_lists(root: Path) -> dict[str, str]:
    """``word/file`` without its suffix -> valid or test, as the corpus' lists say."""
    return {
        line.rpartition(".")[0]: name
        for name, file in LISTS.items()
        for line in (root / file).read_text("utf-8").split()
    }


def divide_by_lists(
    clips: Iterable[Clip], listed: dict[str, str], root: Path, report: CorpusReport
) -> dict[str, list[Clip]]:
    """What no list names is for training; a listed file must be there."""
    sets: dict[str, list[Clip]] = {name: [] for name in SETS}
    missing = dict(listed)
    for clip in clips:
        place = f"{clip.path.parent.name}/{clip.path.stem}"
        sets[listed.get(place, "train")].append(clip)
        missing.pop(place, None)
    for place, name in missing.items():
        where = f"{root / place}.* (in {LISTS[name]})"
        report.problem("listed file that is missing", where)
    return sets


def draw_unknown(clips: list[Clip], rng: np.random.Generator) -> list[Clip]:
    """Keywords, and as many clips of other words as a keyword has on average."""
    known = [clip for clip in clips if clip.label in KEYWORDS]
    others = [clip for clip in clips if clip.label not in KEYWORDS]
    count = min(len(others), round(len(known) / len(KEYWORDS)))
    chosen = sorted(rng.permutation(len(others))[:count])
    return known + [others[i]._replace(label=UNKNOWN) for i in chosen]


def cut_silence(
    noises: list[Path], count: int, name: str, audio_dir: Path, seed: int
) -> list[Clip]:
    """``count`` clips of a second, from the share of each noise file of this set."""
    rng = np.random.default_rng((seed, SETS.index(name)))
    train_share = (100 - VALID_PERCENT - TEST_PERCENT) / 100
    begin, end = {
        "train": (0.0, train_share),
        "valid": (train_share, train_share + VALID_PERCENT / 100),
        "test": (train_share + VALID_PERCENT / 100, 1.0),
    }[name]
    waves = []
    for path in noises:
        wave, rate = read_mono(path)
        wave = resample(wave, rate, SAMPLE_RATE)
        wave = wave[int(begin * len(wave)) : int(end * len(wave))]
        if len(wave) >= SAMPLE_RATE:
            waves.append((path.stem, wave))
    if count and not waves:
        raise ValueError(
            f"{noises[0].parent}: no file is long enough to cut a second for {name} "
            f"from its share ({begin:.0%} to {end:.0%})"
        )
    clips = []
    for number in range(count):
        source, wave = waves[number % len(waves)]
        start = int(rng.integers(len(wave) - SAMPLE_RATE + 1))
        utt = f"noise-{name}-{number:05d}-{source}"
        path = audio_dir.resolve() / name / f"{utt}.flac"
        write_audio(path, wave[start : start + SAMPLE_RATE], SAMPLE_RATE)
        clips.append(Clip(utt, "noise", SILENCE, path))
    return clips


def read_corpus(args: argparse.Namespace, report: CorpusReport) -> dict[str, DataDir]:
    """The three data sets, of the files that are whole.

    Raises:
        ValueError: 35 classes of a corpus without lists, or a set that cannot be made.
        FileNotFoundError: no such corpus.
    """
    root = find_root(args.corpus_dir)
    whole = all((root / file).is_file() for file in LISTS.values())
    if not whole and args.classes != 12:
        raise ValueError(
            f"{root} lacks {' or '.join(LISTS.values())}: --classes {args.classes} "
            "needs the whole corpus; a folder of twelve classes goes with --classes 12"
        )
    listed = read_lists(root) if whole else {}
    words = {place.partition("/")[0] for place in listed} | {*KEYWORDS}
    if not whole:
        words |= {UNKNOWN, SILENCE}
    for folder in sorted({p.name for p in root.glob("[!.]*/")} - words - {NOISE}):
        report.note("folder that is no class of this task", str(root / folder))
    clips = [clip for word in sorted(words) for clip in read_class(root / word, report)]
    good = check_files({c.utt: str(c.path) for c in clips}, report, nj=args.nj)
    sets = divide_by_lists(clips, listed, root, report) if whole else divide(clips)
    sets = {
        name: [clip for clip in group if clip.utt in good]
        for name, group in sets.items()
    }
    if whole and args.classes == 12:
        sets = _twelve_classes(root, sets, args, report)
    return {name: _data_dir(name, group) for name, group in sets.items()}


def _twelve_classes(
    root: Path,
    sets: dict[str, list[Clip]],
    args: argparse.Namespace,
    report: CorpusReport,
) -> dict[str, list[Clip]]:
    noises = sorted((root / NOISE).glob("*.wav"))
    if not noises:
        report.problem(
            "class without audio", f"{root / NOISE}: no such folder, or empty"
        )
    made = {}
    for name, clips in sets.items():
        drawn = draw_unknown(clips, np.random.default_rng((args.seed, len(made))))
        keywords = sum(clip.label != UNKNOWN for clip in drawn)
        count = round(keywords / len(KEYWORDS)) if noises else 0
        made[name] = drawn + cut_silence(noises, count, name, args.audio_dir, args.seed)
    return made


def _data_dir(name: str, clips: list[Clip]) -> DataDir:
    if not clips:
        raise ValueError(
            f"no clip is left for {name}: the corpus has too few speakers to divide"
        )
    return DataDir(
        wav={clip.utt: str(clip.path) for clip in clips},
        utt2spk={clip.utt: clip.speaker for clip in clips},
        text={clip.utt: clip.label for clip in clips},
    )


def main(cmd: list[str] | None = None) -> int:
    """Entry point."""
    args = get_parser().parse_args(cmd)
    report = CorpusReport()
    try:
        sets = read_corpus(args, report)
    except (FileNotFoundError, ValueError, AudioError) as error:
        report.finish(args.out_dir / "problems.log", skip_bad=True)
        print(f"error: {error}", file=sys.stderr)
        return 1
    status = report.finish(args.out_dir / "problems.log", skip_bad=args.skip_bad)
    if status == 0:
        for name, data in sets.items():
            data.write(args.out_dir / name)
            print(summary(args.out_dir / name, data))
    return status


if __name__ == "__main__":
    sys.exit(main())
