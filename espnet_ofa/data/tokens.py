"""Token lists in ESPnet's layout: ``<blank>``, ``<unk>``, ..., ``<sos/eos>``."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import sentencepiece

from espnet_ofa.data.table import read_table
from espnet_ofa.files import write_text

BLANK, UNKNOWN, SPACE, SOS_EOS = "<blank>", "<unk>", "<space>", "<sos/eos>"
BPEMode = Literal["unigram", "bpe"]


def read_texts(paths: Iterable[str | Path]) -> list[str]:
    """The transcripts of Kaldi ``text`` files, without utterance ids.

    Raises:
        ValueError: there are no words in them.
    """
    paths = [str(path) for path in paths]
    texts = [text for path in paths for text in read_table(path).values() if text]
    if not texts:
        raise ValueError(f"{', '.join(paths)}: no transcripts to make tokens from")
    return texts


def char_tokens(texts: Sequence[str], nlsyms: Sequence[str] = ()) -> list[str]:
    """Characters by falling frequency, a space as ``<space>``, as asr.sh does.

    Args:
        texts: transcripts.
        nlsyms: non-linguistic symbols (``<noise>``), one token each.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_characters(text, nlsyms))
    ranked = [token for token, _ in counts.most_common()]
    return [BLANK, UNKNOWN, *ranked, SOS_EOS]


def phone_tokens(texts: Sequence[str]) -> list[str]:
    """Phones by falling frequency.

    Args:
        texts: phones, separated by spaces.
    """
    counts = Counter(phone for text in texts for phone in text.split())
    return [BLANK, UNKNOWN, *(phone for phone, _ in counts.most_common()), SOS_EOS]


def _characters(text: str, nlsyms: Sequence[str]) -> Iterator[str]:
    pattern = "|".join([*map(re.escape, sorted(nlsyms, key=len, reverse=True)), "."])
    for token in re.findall(pattern, text, re.DOTALL):
        yield SPACE if token == " " else token


def train_bpe(
    texts: Sequence[str],
    model: str | Path,
    *,
    vocab_size: int,
    mode: BPEMode = "unigram",
    nlsyms: Sequence[str] = (),
    character_coverage: float = 1.0,
    max_sentences: int = 100_000_000,
) -> list[str]:
    """Trains a sentencepiece model.

    Args:
        texts: transcripts.
        model: where the model goes; the vocabulary lies beside it as ``*.vocab``.
        vocab_size: pieces, sentencepiece's own three (``<unk> <s> </s>``) included. A
            unigram model of little text has fewer, with a warning.
        mode: sentencepiece's model type.
        nlsyms: symbols that are never split.
        character_coverage: share of the characters that get a piece.
        max_sentences: at most that many transcripts are sampled.

    Returns:
        The token list; as in asr.sh it has as many entries as the model has pieces.

    Raises:
        ValueError: ``vocab_size`` does not fit the text; names the limit.
    """
    model = Path(model)
    model.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=".bpe") as work:
        prefix = Path(work) / "model"
        try:
            sentencepiece.SentencePieceTrainer.Train(
                sentence_iterator=iter(texts),
                model_prefix=str(prefix),
                vocab_size=vocab_size,
                model_type=mode,
                user_defined_symbols=list(nlsyms),
                character_coverage=character_coverage,
                hard_vocab_limit=mode != "unigram",
                input_sentence_size=max_sentences,
                num_threads=4,  # fixed: the pieces depend on it
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                _explain(str(error), texts, vocab_size, len(nlsyms))
            ) from error
        vocabulary = prefix.with_suffix(".vocab").read_text(encoding="utf-8")
        os.replace(prefix.with_suffix(".vocab"), model.with_suffix(".vocab"))
        os.replace(prefix.with_suffix(".model"), model)
    pieces = [line.split("\t")[0] for line in vocabulary.rstrip("\n").split("\n")]
    if len(pieces) < vocab_size:
        logging.warning(
            "--nbpe %d is too large for %d transcripts; %s has %d pieces",
            *(vocab_size, len(texts), model, len(pieces)),
        )
    pieces = [piece for piece in pieces if piece not in (UNKNOWN, "<s>", "</s>")]
    return [BLANK, UNKNOWN, *pieces, SOS_EOS]


def _explain(error: str, texts: Sequence[str], vocab_size: int, symbols: int) -> str:
    """sentencepiece's message, with the limit and the way out."""
    at_most = re.search(r"value <= (\d+)", error)
    if at_most:
        return (
            f"--nbpe {vocab_size} is too large for {len(texts)} transcripts: the "
            f"maximum is {at_most.group(1)}; choose a smaller one or give more text"
        )
    # the word mark, three pieces of sentencepiece's own, and every character
    at_least = len(set("".join(texts)) - {" "}) + 4 + symbols
    if vocab_size < at_least:
        return (
            f"--nbpe {vocab_size} is too small: {at_least - symbols - 3} characters "
            f"and {symbols} symbols occur in the text, the minimum is {at_least}"
        )
    return f"sentencepiece failed for --nbpe {vocab_size}: {error}"


def write_tokens(path: str | Path, tokens: Sequence[str]) -> None:
    """Writes ``tokens.txt``, one per line."""
    write_text(path, "".join(f"{token}\n" for token in tokens))
