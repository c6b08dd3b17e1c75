#!/usr/bin/env python3
"""Makes data directories for speaker identification from LibriSpeech's layout.

The speakers are the classes, the same in training, validation and test (a closed set).
Each one's utterances are divided in the order of their names, which is that of the
recording: the last are for the test, those before them for validation, so that
neighbours in a chapter seldom fall apart. Utterances are cut into pieces of
--seconds: who speaks for half a minute is no task.

Every file is decoded; missing and damaged ones are reported one by one, and the exit
status is 1.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from corpus_report import CorpusReport, summary
from espnet_ofa.data.audio import audio_info, is_finished, read_mono, write_audio
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.parallel import run_jobs
from librispeech import find_part, read_part

SETS = ("train", "valid", "test")


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--corpus_dir", type=Path, required=True)
    parser.add_argument(
        "--parts",
        required=True,
        help="for example 'train-clean-5 dev-clean-2'; a|b: a, or else b",
    )
    parser.add_argument(
        "--out_dir", type=Path, required=True, help="gets train, valid and test"
    )
    parser.add_argument("--audio_dir", type=Path, required=True, help="for the pieces")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="length of a piece; 0: do not cut"
    )
    parser.add_argument(
        "--test_share", type=float, default=0.2, help="of each speaker's utterances"
    )
    parser.add_argument(
        "--valid_share", type=float, default=0.1, help="of each speaker's utterances"
    )
    parser.add_argument("--nj", type=int, default=2, help="processes")
    parser.add_argument(
        "--skip_bad", action="store_true", help="leave bad files out and go on"
    )
    return parser


def divide(data: DataDir, valid_share: float, test_share: float) -> dict[str, DataDir]:
    """Utterances of every speaker in every set, at least one of each.

    Raises:
        ValueError: a speaker of fewer than three utterances, or shares that leave
            nothing for training.
    """
    chosen: dict[str, list[str]] = {name: [] for name in SETS}
    for speaker, utterances in data.spk2utt.items():
        test = max(1, round(test_share * len(utterances)))
        valid = max(1, round(valid_share * len(utterances)))
        train = len(utterances) - valid - test
        if train < 1:
            raise ValueError(
                f"speaker {speaker} has {len(utterances)} utterances; {test} for test "
                f"and {valid} for validation leave none to train on. Leave the speaker "
                "out, or lower --test_share and --valid_share"
            )
        chosen["train"] += utterances[:train]
        chosen["valid"] += utterances[train : train + valid]
        chosen["test"] += utterances[train + valid :]
    return {name: data.subset(utterances) for name, utterances in chosen.items()}


def cut(
    item: tuple[str, str, str], *, seconds: float, audio_dir: Path
) -> list[tuple[str, str]]:
    """Pieces of one utterance; a remainder is dropped, a short utterance stays whole.

    Args:
        item: utterance, speaker, audio file.
        seconds: length of a piece.
        audio_dir: where pieces go.

    Returns:
        Ids and files.
    """
    utt, speaker, file = item
    info = audio_info(file)
    length = round(seconds * info.sample_rate)
    pieces = max(info.frames // length, 1)
    names = [f"{utt}-p{number:02d}" for number in range(pieces)]
    paths = [audio_dir / speaker / f"{name}.flac" for name in names]
    frames = min(length, info.frames)
    missing = [
        (number, path)
        for number, path in enumerate(paths)
        if not is_finished(path, Path(file), info.sample_rate, frames)
    ]
    if missing:
        wave, rate = read_mono(file)
        for number, path in missing:
            write_audio(path, wave[number * length : (number + 1) * length], rate)
    return [(name, str(path)) for name, path in zip(names, paths, strict=True)]


def cut_all(data: DataDir, seconds: float, audio_dir: Path, nj: int) -> DataDir:
    """A data directory of pieces; the speakers are its text."""
    items = [(utt, data.utt2spk[utt], data.wav[utt]) for utt in data.utterances]
    if seconds > 0:
        work = partial(cut, seconds=seconds, audio_dir=audio_dir.resolve())
        pieces = run_jobs(work, items, nj=nj, label="cut")
    else:
        pieces = [[(utt, file)] for utt, _, file in items]
    wav, speakers = {}, {}
    for (_, speaker, _), found in zip(items, pieces, strict=True):
        wav.update(found)
        speakers.update((utt, speaker) for utt, _ in found)
    return DataDir(wav=wav, utt2spk=speakers, text=dict(speakers))


def main(cmd: list[str] | None = None) -> int:
    """Entry point."""
    args = get_parser().parse_args(cmd)
    report = CorpusReport()
    try:
        parts = [find_part(args.corpus_dir, part) for part in args.parts.split()]
        data = DataDir.combine(
            read_part(part, report, nj=args.nj, audio_only=True) for part in parts
        )
        log = args.out_dir / "problems.log"
        status = report.finish(log, skip_bad=args.skip_bad)
        if status:
            return status
        sets = divide(data, args.valid_share, args.test_share)
        for name, group in sets.items():
            pieces = cut_all(group, args.seconds, args.audio_dir / name, args.nj)
            pieces.write(args.out_dir / name)
            print(summary(args.out_dir / name, pieces))
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
