"""The whole synth corpus: splits, data directories, and its figures."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_ofa.data.boundaries import Segmentation
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.parallel import run_jobs
from synth.espeak import SILENCE
from synth.grammar import GRAMMARS, sample_sentences
from synth.speak import SAMPLE_RATE, Job, make
from synth.voices import VOICES


@dataclass(frozen=True)
class Sizes:
    """Utterances per split; ``spell_share`` of the training ones are spelled."""

    train: int = 3500
    valid: int = 150
    test: int = 300
    test_spell: int = 100
    spell_share: float = 0.1


@dataclass(frozen=True)
class Group:
    """Utterances drawn alike: one grammar, one bucket of sentences, one data set."""

    name: str
    data_set: str
    grammar: str
    bucket: str


GROUPS = (
    Group("train", "train", "main", "train"),
    Group("trainspell", "train", "spell", "train"),
    Group("valid", "valid", "main", "valid"),
    Group("test", "test", "main", "test"),
    Group("testspell", "test_spell", "spell", "test"),
)


def plan(
    sizes: Sizes, audio_dir: Path, seed: int, audio_format: str
) -> dict[str, list[Job]]:
    """The jobs of every data set; each of its voices speaks equally often.

    An utterance depends on the seed and its number in its group alone: a larger corpus
    contains the smaller one, and keeps its audio.

    Raises:
        AssertionError: train shares a sentence or a voice with another set.
    """
    spelled = round(sizes.spell_share * sizes.train)
    counts = (sizes.train - spelled, spelled, sizes.valid, sizes.test, sizes.test_spell)
    jobs: dict[str, list[Job]] = {}
    for group, count in zip(GROUPS, counts, strict=True):
        key = (seed, zlib.crc32(group.name.encode()))
        texts = sample_sentences(
            GRAMMARS[group.grammar],
            group.bucket,
            count,
            np.random.default_rng(key),
            unique=group.bucket != "train",
        )
        voices = VOICES[group.bucket]
        for index, text in enumerate(texts):
            voice = voices[index % len(voices)]
            utt = f"{voice.speaker}-{group.name}-{index:05d}"
            path = audio_dir / group.data_set / voice.speaker / f"{utt}.{audio_format}"
            job = Job(utt, text, voice, (*key, index), path)
            jobs.setdefault(group.data_set, []).append(job)
    for name, others in jobs.items():
        if name != "train":
            assert_unseen(name, others, jobs.get("train", []))
    return jobs


def assert_unseen(name: str, jobs: list[Job], train: list[Job]) -> None:
    """Checks that a set has no sentence and no voice variant of the training set.

    Raises:
        AssertionError: names what both have.
    """
    seen = {job.text for job in train} | {job.voice.variant for job in train}
    for job in jobs:
        for what in (job.text, job.voice.variant):
            if what in seen:
                raise AssertionError(f"{name} and train both have {what!r}")


def build(
    sizes: Sizes,
    data_dir: Path,
    audio_dir: Path,
    *,
    seed: int = 0,
    nj: int = 1,
    audio_format: str = "flac",
) -> dict[str, Any]:
    """Makes the corpus: audio, data directories, and the figures that describe it.

    Returns:
        What ``stats.json`` holds.
    """
    jobs = plan(sizes, audio_dir.resolve(), seed, audio_format)
    everything = [job for split in jobs.values() for job in split]
    segments = dict(
        zip(
            [job.utt for job in everything],
            run_jobs(make, everything, nj=nj, label="synthesise"),
            strict=True,
        )
    )
    stats: dict[str, Any] = {"seed": seed}
    for split, split_jobs in jobs.items():
        made = {job.utt: segments[job.utt] for job in split_jobs}
        data = DataDir(
            wav={job.utt: str(job.path) for job in split_jobs},
            utt2spk={job.utt: job.voice.speaker for job in split_jobs},
            text={job.utt: job.text for job in split_jobs},
            boundaries={
                utt: Segmentation(np.array(one.ends), one.phones)
                for utt, one in made.items()
            },
        )
        data.write(data_dir / split)
        seconds = sum(one.num_samples for one in made.values()) / SAMPLE_RATE
        phones = sum(p != SILENCE for one in made.values() for p in one.phones)
        words = [word for job in split_jobs for word in job.text.split()]
        stats[split] = {
            "utterances": len(split_jobs),
            "sentences": len({job.text for job in split_jobs}),
            "voices": len({job.voice.speaker for job in split_jobs}),
            "hours": round(seconds / 3600, 3),
            "seconds_per_utterance": round(seconds / len(split_jobs), 2),
            "word_types": len(set(words)),
            "words": len(words),
            "characters_per_second": round(
                sum(len(job.text) for job in split_jobs) / seconds, 2
            ),
            "phones_per_second": round(phones / seconds, 2),
        }
        if split != "train":
            stats[split]["bigram_perplexity"] = round(
                bigram_perplexity(
                    [job.text for job in jobs["train"]],
                    [job.text for job in split_jobs],
                ),
                2,
            )
    return stats


def bigram_perplexity(
    train: Sequence[str], test: Sequence[str], *, add_k: float = 0.1
) -> float:
    """Perplexity per word (sentence end included) of an add-k bigram model.

    Args:
        train: sentences the model is counted on.
        test: sentences it is asked about; words unknown to ``train`` share one entry.
        add_k: added to every count; the vocabulary is that of ``train``, sentence
            end and the unknown word.
    """
    start, end, unknown = "<s>", "</s>", "<unk>"
    vocabulary = {word for sentence in train for word in sentence.split()}

    def pairs(sentence: str) -> list[tuple[str, str]]:
        words = [w if w in vocabulary else unknown for w in sentence.split()]
        return list(zip([start, *words], [*words, end], strict=True))

    bigrams = Counter(pair for sentence in train for pair in pairs(sentence))
    contexts: Counter[str] = Counter()
    for (left, _), count in bigrams.items():
        contexts[left] += count
    size = len(vocabulary) + 2
    log_likelihood, total = 0.0, 0
    for sentence in test:
        for left, right in pairs(sentence):
            numerator = bigrams[left, right] + add_k
            log_likelihood += math.log(numerator / (contexts[left] + add_k * size))
            total += 1
    return math.exp(-log_likelihood / total)
