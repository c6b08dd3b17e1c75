"""Alignments that others have made, as segments that tile the audio.

What a file is follows from its name:

==================  ==================================================================
``*.ctm``, ``ctm``  Kaldi: ``utt channel start duration label [confidence]``, seconds
``*.lengths``       Kaldi's ``ali-to-phones --write-lengths=true``, as text:
                    ``utt phone frames ; phone frames ; ...``
``*.TextGrid``      Praat, also in folders, as the Montreal Forced Aligner writes
                    them: one file for each utterance, which it is named after
``boundaries``      our own, see :mod:`espnet_ofa.data.boundaries`, or its folder
==================  ==================================================================

Silence is a segment like any other, ``sil``, whatever it is called there; so are the
gaps that a ctm leaves. Silent neighbours are merged into one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from espnet_ofa.data.boundaries import Segmentation, read_boundaries
from espnet_ofa.data.table import DataError, read_table
from espnet_ofa.data.textgrid import Interval, read_tier

SILENCE = "sil"
# Also with Kaldi's endings for the place in a word, e.g. SIL_B; spn is a noise.
_SILENCES = {"", SILENCE, "sp", "<eps>", "pau", "h#"}
_GAP = 0.01  # seconds; less is rounding
_TOLERANCE = 0.04  # seconds between the last segment's end and the audio's
_PERTURBED = re.compile(r"sp(\d+(?:\.\d+)?)-(.+)")

Find = Callable[[str], list[Interval]]


def read_alignments(
    path: str | Path,
    seconds: Mapping[str, float],
    *,
    tier: str = "phones",
    frame_ms: float = 10.0,
) -> dict[str, Segmentation]:
    """Segments of these utterances, each ending with its audio.

    A copy at another speed, ``sp0.9-utt``, has the segments of ``utt``, scaled, where
    it has none of its own.

    Args:
        path: alignments; the table above says which.
        seconds: length of each utterance that needs segments.
        tier: of TextGrids.
        frame_ms: of ``lengths``: what one frame of the aligner lasts.

    Raises:
        DataError: a file of another kind; or all utterances at once that are missing,
            out of order or disagree with their audio.
        FileNotFoundError: no such file or folder.
    """
    path = Path(path)
    find = _open(path, tier, frame_ms)
    # Where silence need not be written, the audio may go on after the last segment.
    open_end = _is_ctm(path)
    found: dict[str, Segmentation] = {}
    problems: list[str] = []
    for utt in sorted(seconds):
        try:
            found[utt] = _tiled(_of_speed(find, utt), seconds[utt], open_end)
        except ValueError as error:
            problems.append(f"{utt}: {error}")
    if problems:
        raise DataError(path, problems)
    return found


def _is_ctm(path: Path) -> bool:
    return path.name.split(".")[-1].lower() == "ctm"


def _open(path: Path, tier: str, frame_ms: float) -> Find:
    """How to find an utterance's intervals there."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder of alignments")
    if (path / "boundaries").is_file():
        path = path / "boundaries"
    if path.is_dir() or path.suffix.lower() == ".textgrid":
        return _textgrids(path, tier)
    if path.name == "boundaries":
        segmentations = read_boundaries(path.parent)
        return _finder({u: _intervals(one) for u, one in segmentations.items()})
    if _is_ctm(path):
        return _finder(_read_ctm(path))
    if path.suffix == ".lengths":
        return _finder(_read_lengths(path, frame_ms / 1000))
    raise DataError(
        path,
        [
            "unknown kind of alignments: expected a file named *.ctm, *.lengths, "
            "*.TextGrid or boundaries, or a folder of TextGrids; rename it if it is one"
        ],
    )


def _finder(table: Mapping[str, list[Interval]]) -> Find:
    def find(utt: str) -> list[Interval]:
        if utt not in table:
            raise KeyError(utt)
        return table[utt]

    return find


def _of_speed(find: Find, utt: str) -> list[Interval]:
    """Intervals of an utterance, or those of its original at its speed."""
    copy = _PERTURBED.fullmatch(utt)
    for name, factor in [(utt, 1.0)] + ([(copy[2], float(copy[1]))] if copy else []):
        try:
            intervals = find(name)
        except KeyError:
            continue
        return [Interval(a / factor, b / factor, label) for a, b, label in intervals]
    raise ValueError(
        "expected segments, found none: align it, or leave it out of the data"
    )


def _intervals(segmentation: Segmentation) -> list[Interval]:
    ends = segmentation.ends.tolist()
    labels = segmentation.phones or (None,) * len(ends)
    return list(map(Interval, [0.0, *ends[:-1]], ends, labels))


def _textgrids(path: Path, tier: str) -> Find:
    """Files by the utterances that they are named after; read when asked for."""
    files: dict[str, Path] = {}
    problems: list[str] = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.suffix.lower() == ".textgrid":
            if file.stem in files:
                problems.append(f"{file.stem}: both {files[file.stem]} and {file}")
            files[file.stem] = file
    if not files:
        problems.append("expected boundaries or *.TextGrid in the folder, found none")
    if problems:
        raise DataError(path, problems)
    return lambda utt: read_tier(files[utt], tier)


def _read_ctm(path: Path) -> dict[str, list[Interval]]:
    table: dict[str, list[Interval]] = defaultdict(list)
    problems: list[str] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        try:
            utt, _, start, duration, label = fields[:5]
            begin = float(start)
            table[utt].append(Interval(begin, begin + float(duration), label))
        except ValueError:
            problems.append(
                f"line {number}: expected `utt channel start duration label`, found "
                f"{line[:60]!r}"
            )
    if problems:
        raise DataError(path, problems)
    return table


def _read_lengths(path: Path, step: float) -> dict[str, list[Interval]]:
    table: dict[str, list[Interval]] = {}
    problems: list[str] = []
    for utt, value in read_table(path).items():
        pairs = [pair.split() for pair in value.split(";")]
        if not all(len(p) == 2 and p[1].isdigit() and int(p[1]) for p in pairs):
            problems.append(
                f"{utt}: expected `phone frames ; phone frames`, found {value[:60]!r}"
            )
            continue
        ends = step * np.cumsum([int(frames) for _, frames in pairs])
        table[utt] = _intervals(Segmentation(ends, tuple(phone for phone, _ in pairs)))
    if problems:
        raise DataError(path, problems)
    return table


def _tiled(
    intervals: Iterable[Interval], seconds: float, open_end: bool
) -> Segmentation:
    """Intervals without gaps, from 0 to the end of the audio.

    Raises:
        ValueError: they cannot be brought to that.
    """
    ends: list[float] = []
    labels: list[str | None] = []

    def append(end: float, label: str | None) -> None:
        if labels and label == labels[-1] == SILENCE:
            ends[-1] = end
        else:
            ends.append(end)
            labels.append(label)

    last = 0.0
    for start, end, label in intervals:
        if start < 0 or not end > start:
            raise ValueError(
                f"segment {label!r} from {start:.3f} to {end:.3f} s: expected a start "
                "from 0 and an end after it; correct or remove it"
            )
        if start < last - _GAP or end <= last:
            raise ValueError(
                f"segment {label!r} starts at {start:.3f} s, the one in front of it "
                f"ends at {last:.3f} s: expected an order without overlaps; sort them, "
                "or correct one"
            )
        if start > last + _GAP:
            append(start, SILENCE)
        append(end, _plain(label))
        last = end
    if open_end and seconds > last + _TOLERANCE:
        append(seconds, SILENCE)
    elif abs(last - seconds) > _TOLERANCE:
        raise ValueError(
            f"segments end at {last:.3f} s, its audio at {seconds:.3f} s: align this "
            "audio, at this speed"
        )
    kept = [i for i in range(len(ends)) if not i or ends[i - 1] < seconds]
    phones = [label for label in (labels[i] for i in kept) if label is not None]
    return Segmentation(
        np.array([*(ends[i] for i in kept[:-1]), seconds]),
        tuple(phones) if len(phones) == len(kept) else None,
    )


def _plain(label: str | None) -> str | None:
    """The label, ``sil`` where it is one of the names of silence."""
    if label is None:
        return None
    return SILENCE if re.sub("_[BIES]$", "", label).lower() in _SILENCES else label
