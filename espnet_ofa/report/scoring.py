"""Word, character and phone error rates of a decoded test set.

Hypotheses and references are Kaldi text files (``utterance words ...`` per line, or
phones). Case and punctuation count as they stand; runs of white space count as one
space, and for the character error rate that space is a character, as in ESPnet's own
scoring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from espnet_ofa.files import write_text

Unit = Literal["wer", "cer", "per"]
SPOKEN: tuple[Unit, ...] = ("wer", "cer")  # of words
PHONES: tuple[Unit, ...] = ("per",)


@dataclass(frozen=True)
class Score:
    """Counts of one test set, and the percentages that RESULTS tables show.

    Attributes:
        sentences: utterances.
        tokens: words (characters, phones) in the references.
        correct, substitutions, deletions, insertions: tokens.
        wrong_sentences: utterances with at least one error.
        errors, lengths: of each utterance, by its name: errors, and tokens of the
            reference.
    """

    sentences: int
    tokens: int
    correct: int
    substitutions: int
    deletions: int
    insertions: int
    wrong_sentences: int
    errors: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()

    def _share(self, count: int) -> float:
        return 100.0 * count / self.tokens if self.tokens else float("nan")

    @property
    def error_rate(self) -> float:
        """(Sub + Del + Ins) / tokens, in percent."""
        return self._share(self.substitutions + self.deletions + self.insertions)

    @property
    def sentence_error_rate(self) -> float:
        """Utterances with an error, in percent."""
        return 100.0 * self.wrong_sentences / max(self.sentences, 1)

    def percentages(self) -> tuple[float, ...]:
        """Corr, Sub, Del, Ins, Err, S.Err in percent, the columns of RESULTS."""
        counts = self.correct, self.substitutions, self.deletions, self.insertions
        return (
            *(self._share(count) for count in counts),
            self.error_rate,
            self.sentence_error_rate,
        )


def read_text(path: str | Path) -> dict[str, str]:
    """Read a Kaldi text file: utterance -> words; an empty transcript is allowed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an utterance appears twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected a Kaldi text file (`utterance words ...`)"
        )
    texts: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if fields[0] in texts:
            raise ValueError(
                f"{path}:{number}: utterance {fields[0]} appears twice; keep one line"
            )
        texts[fields[0]] = " ".join(fields[1:])
    return texts


def _names(utterances: set[str], shown: int = 5) -> str:
    first = sorted(utterances)[:shown]
    more = len(utterances) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


def check_same_utterances(
    refs: dict[str, str], hyps: dict[str, str], where: str | Path
) -> None:
    """Raise unless references and hypotheses cover the same utterances.

    Raises:
        ValueError: names what is missing or unknown; nothing is scored in part.
    """
    missing, extra = refs.keys() - hyps.keys(), hyps.keys() - refs.keys()
    if missing:
        raise ValueError(
            f"{where}: {len(missing)} of {len(refs)} utterances were not decoded: "
            f"{_names(missing)}. Decode again, or give the references of what was."
        )
    if extra:
        raise ValueError(
            f"{where}: {len(extra)} utterances have no reference: {_names(extra)}. "
            "Give the reference text of this test set."
        )
    if not refs:
        raise ValueError(f"{where}: the reference is empty, so there is no error rate")


def _align(unit: Unit, refs: list[str], hyps: list[str]):
    try:
        import jiwer
    except ImportError as error:
        raise ImportError("scoring needs jiwer: pip install jiwer") from error
    process = jiwer.process_characters if unit == "cer" else jiwer.process_words
    return process(refs, hyps)


def score(refs: dict[str, str], hyps: dict[str, str], unit: Unit = "wer") -> Score:
    """Score hypotheses against references.

    Args:
        refs: utterance -> reference text.
        hyps: utterance -> hypothesis text, the same utterances.
        unit: ``"wer"`` counts words, ``"cer"`` characters, ``"per"`` phones.

    Raises:
        ValueError: the two do not cover the same utterances.
    """
    check_same_utterances(refs, hyps, "hypotheses")
    keys = sorted(refs)
    out = _align(unit, [refs[key] for key in keys], [hyps[key] for key in keys])
    errors = tuple(sum(map(_errors, chunks)) for chunks in out.alignments)
    return Score(
        sentences=len(keys),
        tokens=out.hits + out.substitutions + out.deletions,
        correct=out.hits,
        substitutions=out.substitutions,
        deletions=out.deletions,
        insertions=out.insertions,
        wrong_sentences=sum(map(bool, errors)),
        errors=errors,
        lengths=tuple(map(len, out.references)),
    )


def _errors(chunk) -> int:
    """Of a chunk of an alignment: tokens that are not equal, on the longer side."""
    if chunk.type == "equal":
        return 0
    reference = chunk.ref_end_idx - chunk.ref_start_idx
    return max(reference, chunk.hyp_end_idx - chunk.hyp_start_idx)


def result_text(
    refs: dict[str, str], hyps: dict[str, str], unit: Unit, total: Score
) -> str:
    """The text of ``result.txt``: the summary in sclite's layout, then every error.

    ESPnet's ``show_asr_result.sh`` finds its line by ``Avg``.
    """
    rates = " ".join(f"{value:5.1f}" for value in total.percentages())
    lines = [
        "| SPKR    |  # Snt   # Wrd |  Corr   Sub   Del   Ins   Err S.Err |",
        f"| Sum/Avg | {total.sentences:7d} {total.tokens:7d} | {rates} |",
        "",
        "Utterances with errors, worst first (C S D I: correct, substituted, deleted,"
        " inserted)",
    ]
    wrong = []
    for key in sorted(refs):
        one = score({key: refs[key]}, {key: hyps[key]}, unit)
        if one.wrong_sentences:
            wrong.append((one, key))
    wrong.sort(key=lambda item: item[0].correct - item[0].tokens - item[0].insertions)
    for one, key in wrong:
        counts = one.correct, one.substitutions, one.deletions, one.insertions
        lines += [
            "",
            f"{key} (C S D I) {' '.join(map(str, counts))}",
            f"REF: {refs[key]}",
            f"HYP: {hyps[key]}",
        ]
    return "\n".join(lines) + "\n"


def score_dir(
    decode_dir: str | Path, reference: str | Path, units: Sequence[Unit] = SPOKEN
) -> dict[Unit, Score]:
    """Score ``decode_dir/text`` and write ``score_{unit}/result.txt`` beside it.

    Args:
        decode_dir: one lambda and one test set, as asr_inference wrote it.
        reference: Kaldi text file of the test set.
        units: what to count.

    Returns:
        ``{"wer": Score, "cer": Score}``, or what ``units`` are.

    Raises:
        FileNotFoundError: no hypotheses or no reference.
        ValueError: the two do not cover the same utterances.
    """
    decode_dir = Path(decode_dir)
    refs, hyps = read_text(reference), read_text(decode_dir / "text")
    check_same_utterances(refs, hyps, decode_dir)
    scores: dict[Unit, Score] = {}
    for unit in units:
        scores[unit] = score(refs, hyps, unit)
        text = result_text(refs, hyps, unit, scores[unit])
        write_text(decode_dir / f"score_{unit}" / "result.txt", text)
    return scores
