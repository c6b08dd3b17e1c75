"""Rows of the trade-off: what each lambda costs and what it gets right."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_ofa.files import write_text
from espnet_ofa.report.scoring import PHONES, SPOKEN, Score, Unit, read_text, score_dir
from espnet_ofa.report.stats import DecodeStats, load_stats, merge_stats

_TEXT_FILES = ("text", "token", "token_int", "score")
_JOBS = "logdir/output.*"


@dataclass(frozen=True)
class Row:
    """One system on one test set at one lambda: measured cost, and errors."""

    system: str
    stats: DecodeStats
    scores: Mapping[Unit, Score]

    @property
    def metric(self) -> Unit:
        """``wer``, or ``per`` where labels are phones."""
        return "per" if "per" in self.scores else "wer"

    @property
    def score(self) -> Score:
        """Of words, or of phones."""
        return self.scores[self.metric]

    @property
    def wer(self) -> float:
        """Error rate in percent, of words or of phones."""
        return self.score.error_rate

    def costs(self) -> dict[str, object]:
        """What was classified or recognised, and what it cost; flat values."""
        stats = self.stats
        return {
            "system": self.system,
            "test_set": stats.test_set,
            "lambda": stats.lam,
            "adaptive": stats.adaptive,
            "lambda_start": stats.lam_start,
            "squeeze": stats.squeeze,
            "utterances": stats.utterances,
            "audio_seconds": round(stats.audio_seconds, 3),
            "frames": stats.frames,
            "units": stats.units,
            "period_ms": stats.period_ms,
            "units_per_second": stats.units_per_second,
            "macs_per_second": stats.macs_per_second,
            "rtf": stats.rtf,
            "encoder_rtf": stats.encoder_rtf,
        }

    def as_dict(self) -> dict[str, object]:
        """Flat values, for CSV and JSON."""
        stats, score, cer = self.stats, self.score, self.scores.get("cer")
        return {
            **self.costs(),
            self.metric: score.error_rate,
            "substitutions": score.substitutions,
            "deletions": score.deletions,
            "insertions": score.insertions,
            "phones" if self.metric == "per" else "words": score.tokens,
            **({} if cer is None else {"cer": cer.error_rate}),
            "capped": stats.capped,
            "infeasible": stats.infeasible,
            "too_short": stats.too_short,
            "parameters": sum(stats.parameters.values()),
        }


def merge_jobs(decode_dir: str | Path) -> None:
    """Join what parallel jobs left in ``decode_dir/logdir/output.*``, if any.

    Raises:
        ValueError: two jobs decoded the same utterance.
    """
    decode_dir = Path(decode_dir)
    parts: dict[Path, list[Path]] = {}
    for job in sorted(decode_dir.glob(_JOBS)):
        for part in sorted(job.glob("lam*/*")):
            parts.setdefault(decode_dir / part.relative_to(job), []).append(part)
    for target, folders in parts.items():
        stats = merge_stats([load_stats(folder) for folder in folders])
        for name in _TEXT_FILES:
            lines: dict[str, str] = {}
            for folder in folders:
                for key, value in read_text(folder / name).items():
                    if key in lines:
                        raise ValueError(
                            f"{folder / name}: utterance {key} was decoded by two "
                            f"jobs; remove {decode_dir / 'logdir'} and decode again"
                        )
                    lines[key] = value
            joined = [f"{key} {lines[key]}".rstrip() + "\n" for key in sorted(lines)]
            write_text(target / name, "".join(joined))
        stats.save(target)


def find_decode_dirs(expdir: str | Path) -> list[Path]:
    """Folders below ``expdir`` that hold ``lam*/<test set>/stats.json``.

    Raises:
        FileNotFoundError: ``expdir`` is missing, or holds none.
    """
    expdir = Path(expdir)
    if not expdir.is_dir():
        raise FileNotFoundError(f"{expdir}: no such folder; give --expdir")
    found: set[Path] = set()
    for path in expdir.glob("**/lam*/*/stats.json"):
        decode_dir = path.parents[2]
        if re.fullmatch(r"output\.\d+", decode_dir.name):
            decode_dir = decode_dir.parents[1]  # .../logdir/output.JOB
        found.add(decode_dir)
    if not found:
        raise FileNotFoundError(
            f"{expdir}: holds no lam*/<test set>/stats.json; decode first with "
            "`python -m espnet_ofa.bin.asr_inference --lam ... --test_set ...`"
        )
    return sorted(found)


def collect_rows(
    system: str,
    decode_dir: str | Path,
    references: Mapping[str, str] | None = None,
    score: Callable[[Path, str], Mapping[Unit, Score]] | None = None,
    keep: Callable[[Path, DecodeStats], bool] | None = None,
) -> list[Row]:
    """Score everything in one decode dir.

    Args:
        system: the name it has in tables and plots.
        decode_dir: ``--output_dir`` of asr_inference.
        references: test set -> Kaldi text file, where it is not where it was when
            decoding.
        score: scores one folder against a Kaldi text file; by default by its words or,
            where it says so, its phones.
        keep: asked with folder and stats before anything is scored; by default all are.

    Returns:
        Rows by test set, then lambda.

    Raises:
        FileNotFoundError: no decode dir, stats.json, hypotheses or references.
        ValueError: hypotheses and references do not fit together.
    """
    decode_dir = Path(decode_dir)
    if not decode_dir.is_dir():
        raise FileNotFoundError(f"{decode_dir}: no such decode dir; decode first")
    merge_jobs(decode_dir)
    folders = sorted(path for path in decode_dir.glob("lam*/*") if path.is_dir())
    if not folders:
        raise FileNotFoundError(
            f"{decode_dir}: holds no lam*/<test set>; decode with asr_inference --lam"
        )
    rows = []
    for folder in folders:
        stats = load_stats(folder)
        if keep is not None and not keep(folder, stats):
            continue
        reference = (references or {}).get(stats.test_set, stats.reference)
        if reference is None or not Path(reference).is_file():
            raise FileNotFoundError(
                f"{folder}: the reference text of {stats.test_set} is not at "
                f"{reference}; say where with --test_set {stats.test_set}:DATA_DIR"
            )
        if score is not None:
            scores = score(folder, reference)
        else:
            scores = score_dir(folder, reference, PHONES if stats.phones else SPOKEN)
        rows.append(Row(system, stats, scores))
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple[str, bool, float, str]:
    stats = row.stats
    return stats.test_set, stats.adaptive, stats.lam or 0.0, stats.squeeze or ""


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (cost, error) points no other point beats; lower is better in both.

    A point is beaten by one that is no worse in both and better in one; equal points
    beat nobody. NaN is never on the front.
    """

    def beaten(cost: float, error: float) -> bool:
        return any(
            c <= cost and e <= error and (c < cost or e < error) for c, e in points
        )

    return [c == c and e == e and not beaten(c, e) for c, e in points]


def on_front(rows: Sequence[Row]) -> list[bool]:
    """For each row: is it on the front of (MACs per second, WER) of its test set?"""
    flags = [False] * len(rows)
    for name in {row.stats.test_set for row in rows}:
        places = [i for i, row in enumerate(rows) if row.stats.test_set == name]
        points = [(rows[i].stats.macs_per_second, rows[i].wer) for i in places]
        for i, flag in zip(places, pareto_front(points), strict=True):
            flags[i] = flag
    return flags
