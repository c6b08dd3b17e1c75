#!/usr/bin/env python3
"""Puts phones in the place of words: a data directory for phone recognition.

``--g2p none`` takes the phones that the corpus comes with (``phones`` beside
``boundaries``), without silence. All else looks words up: labels are then canonical
pronunciations of the transcripts, which speakers need not have followed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.parallel import run_jobs
from synth.espeak import SILENCE, Prosody, synthesise

VOICE = Prosody("en-us")
_NAMED = 5  # words that an error lists


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="input")
    parser.add_argument("--out_dir", type=Path, required=True, help="output")
    parser.add_argument(
        "--g2p",
        default="none",
        help="none; espeak; a lexicon, a file of lines `WORD phone phone ...` of which "
        "a word's first counts; or one of ESPnet's, such as g2p_en_no_space",
    )
    parser.add_argument("--nj", type=int, default=2, help="processes")
    return parser


def own_phones(data: DataDir) -> dict[str, list[str]]:
    """The labels of the segments.

    Raises:
        ValueError: not every utterance has them.
    """
    segments = data.boundaries or {}
    labels = {utt: segments[utt].phones for utt in data.utterances if utt in segments}
    missing = [utt for utt in data.utterances if labels.get(utt) is None]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(data)} utterances have no phones of their own "
            f"({missing[0]}, for example): choose --g2p espeak, or a lexicon"
        )
    return {utt: [*(phones or ())] for utt, phones in labels.items()}


def speak(text: str) -> list[str]:
    """What espeak-ng says for a text, in the phones of the synth corpus."""
    return synthesise(text.lower(), VOICE).phones


def read_lexicon(path: Path) -> dict[str, list[str]]:
    """Word to its first pronunciation; words in upper case.

    Raises:
        ValueError: a word without phones.
    """
    lexicon: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        word, *phones = line.split() or [""]
        if word and not phones:
            raise ValueError(f"{path}, line {number}: {word} has no phones")
        lexicon.setdefault(word.upper(), phones)
    return lexicon


def look_up(texts: dict[str, str], lexicon: dict[str, list[str]]) -> list[list[str]]:
    """Phones of texts, word by word.

    Raises:
        ValueError: names words that the lexicon lacks.
    """
    words = {utt: text.upper().split() for utt, text in texts.items()}
    unknown = {
        w: utt for utt, found in words.items() for w in found if w not in lexicon
    }
    if unknown:
        named = ", ".join(
            f"{word} ({unknown[word]})" for word in sorted(unknown)[:_NAMED]
        )
        raise ValueError(
            f"{len(unknown)} words are not in the lexicon: {named}. Add them, or "
            "choose --g2p espeak"
        )
    return [[p for word in found for p in lexicon[word]] for found in words.values()]


def espnet_g2p(name: str) -> Callable[[str], list[str]]:
    """One of ESPnet's.

    Raises:
        ValueError: it knows no such name.
    """
    from espnet2.text.phoneme_tokenizer import PhonemeTokenizer, g2p_choices

    if name not in g2p_choices:
        raise ValueError(
            f"--g2p {name}: expected none, espeak, a lexicon that exists, or one of "
            f"{', '.join(filter(None, g2p_choices))}"
        )
    return PhonemeTokenizer(name).text2tokens


def pronounce(data: DataDir, g2p: str, nj: int) -> dict[str, list[str]]:
    """Utterance to phones, silence among them.

    Raises:
        ValueError: see the functions above; or there are no transcripts.
    """
    if g2p == "none":
        return own_phones(data)
    if data.text is None:
        raise ValueError("there is no text to pronounce")
    texts = {utt: data.text[utt] for utt in data.utterances}
    if g2p == "espeak":
        found = run_jobs(speak, list(texts.values()), nj=nj, label="pronounce")
    elif Path(g2p).is_file():
        found = look_up(texts, read_lexicon(Path(g2p)))
    else:
        found = map(espnet_g2p(g2p), texts.values())
    return dict(zip(texts, found, strict=True))


def main(cmd: list[str] | None = None) -> int:
    """Entry point."""
    args = get_parser().parse_args(cmd)
    try:
        data = DataDir.read(args.data_dir)
        phones = {
            utt: " ".join(p for p in found if p.strip() and p != SILENCE)
            for utt, found in pronounce(data, args.g2p, args.nj).items()
        }
        silent = [utt for utt, found in phones.items() if not found]
        if silent:
            raise ValueError(f"{silent[0]} and {len(silent) - 1} others have no phones")
        replace(data, text=phones, boundaries=None).write(args.out_dir)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {args.data_dir}: {error}", file=sys.stderr)
        return 1
    kinds = {phone for found in phones.values() for phone in found.split()}
    print(f"{args.out_dir}: {len(phones)} utterances in {len(kinds)} phones")
    return 0


if __name__ == "__main__":
    sys.exit(main())
