"""Choose utterances: by list, speaker, number or hours; split off a validation set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from espnet_ofa.data.audio import audio_info
from espnet_ofa.data.kaldi_dir import DataDir


def by_speakers(data: DataDir, speakers: Sequence[str]) -> DataDir:
    """The utterances of some speakers.

    Raises:
        ValueError: a speaker who is not there.
    """
    known = data.spk2utt
    unknown = [speaker for speaker in speakers if speaker not in known]
    if unknown:
        raise ValueError(
            f"no such speaker: {', '.join(unknown)}; there are {len(known)}, "
            f"for example {', '.join(list(known)[:5])}"
        )
    return data.subset(utt for speaker in speakers for utt in known[speaker])


def by_number(data: DataDir, count: int, seed: int = 0) -> DataDir:
    """``count`` random utterances.

    Raises:
        ValueError: there are not that many.
    """
    if not 1 <= count <= len(data):
        raise ValueError(f"{count} utterances asked for, there are {len(data)}")
    return data.subset(_shuffled(data.utterances, seed)[:count])


def by_hours(data: DataDir, hours: float, seed: int = 0) -> DataDir:
    """Random utterances of at most ``hours`` in total, at least one."""
    kept: list[str] = []
    total = 0.0
    for utt in _shuffled(data.utterances, seed):
        info = audio_info(data.wav[utt])
        total += info.frames / info.sample_rate / 3600
        if kept and total > hours:
            break
        kept.append(utt)
    return data.subset(kept)


def split_speakers(
    data: DataDir, count: int | None = None, seed: int = 0
) -> tuple[DataDir, DataDir]:
    """Holds out ``count`` random speakers, by default a tenth of them.

    Returns:
        The rest, and the held-out speakers' utterances.

    Raises:
        ValueError: no speaker would be left on a side.
    """
    speakers = list(data.spk2utt)
    if count is None:
        count = max(1, len(speakers) // 10)
    if not 1 <= count < len(speakers):
        raise ValueError(
            f"{count} speakers to hold out of {len(speakers)}: expected at least 1 "
            "and fewer than all; see --valid_speakers"
        )
    held_out = set(_shuffled(speakers, seed)[:count])
    rest = [speaker for speaker in speakers if speaker not in held_out]
    return by_speakers(data, rest), by_speakers(data, sorted(held_out))


def split_utterances(
    data: DataDir, count: int, seed: int = 0
) -> tuple[DataDir, DataDir]:
    """Holds out ``count`` random utterances; speakers may be on both sides.

    Raises:
        ValueError: no utterance would be left on a side.
    """
    if not 1 <= count < len(data):
        raise ValueError(
            f"{count} utterances to hold out of {len(data)}: expected at least 1 and "
            "fewer than all"
        )
    order = _shuffled(data.utterances, seed)
    return data.subset(order[count:]), data.subset(order[:count])


def _shuffled(names: list[str], seed: int) -> list[str]:
    return [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
