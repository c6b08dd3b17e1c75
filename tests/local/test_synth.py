"""The synth corpus: repeatable, disjoint, and with boundaries that are true."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("espeakng_loader")

import make_synth  # noqa: E402
from espnet_ofa.data.audio import read_mono  # noqa: E402
from espnet_ofa.data.kaldi_dir import DataDir  # noqa: E402
from synth.corpus import Sizes, assert_unseen, bigram_perplexity, plan  # noqa: E402
from synth.espeak import SILENCE, Prosody, synthesise  # noqa: E402
from synth.grammar import GRAMMARS, bucket, sample_sentences, word_types  # noqa: E402
from synth.speak import record  # noqa: E402
from synth.voices import VOICES  # noqa: E402

TINY = (
    *("--train_utts", "12", "--valid_utts", "3"),
    *("--test_utts", "6", "--test_spell_utts", "3"),
)
SETS = ("train", "valid", "test", "test_spell")


def build(root: Path, *options: str) -> dict[str, DataDir]:
    make_synth.main(
        [
            *("--data_dir", str(root / "data"), "--audio_dir", str(root / "audio")),
            *TINY,
            *options,
        ]
    )
    return {name: DataDir.read(root / "data" / name) for name in SETS}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[Path, dict[str, DataDir]]:
    root = tmp_path_factory.mktemp("synth")
    return root, build(root, "--nj", "1")


def contents(root: Path) -> dict[str, bytes]:
    """Every audio file and table, with the absolute paths taken out."""
    return {
        str(path.relative_to(root)): path.read_bytes().replace(str(root).encode(), b"")
        for path in root.rglob("*")
        if path.is_file()
    }


def test_same_seed_same_bytes_for_any_number_of_processes(tiny, tmp_path):
    root, _ = tiny
    build(tmp_path, "--nj", "2")
    assert contents(tmp_path) == contents(root)


def test_another_seed_is_another_corpus(tiny, tmp_path):
    _, data = tiny
    other = build(tmp_path, "--seed", "1")
    assert other["test"].text != data["test"].text


def test_a_larger_corpus_contains_the_smaller_one(tmp_path):
    small = plan(Sizes(train=20, valid=2, test=3), tmp_path, 0, "flac")
    large = plan(Sizes(train=50, valid=4, test=9), tmp_path, 0, "flac")
    for name in ("train", "valid", "test"):
        assert set(small[name]) < set(large[name])


def test_finished_audio_is_kept_and_damaged_audio_made_again(tmp_path):
    build(tmp_path)
    before = contents(tmp_path)
    audio = sorted((tmp_path / "audio").rglob("*.flac"))
    times = {path: path.stat().st_mtime_ns for path in audio}
    audio[0].write_bytes(b"")
    audio[1].unlink()
    audio[2].with_suffix(".lab").unlink()
    stale = audio[3].with_suffix(".lab")
    stale.write_text(stale.read_text().replace("# ", "# 0", 1))
    build(tmp_path)
    made = {path for path in audio if path.stat().st_mtime_ns != times[path]}
    assert made == set(audio[:4])
    assert contents(tmp_path) == before


def test_default_plan_is_disjoint_and_covers_its_words(tmp_path):
    jobs = plan(Sizes(), tmp_path, 0, "flac")
    train = jobs["train"]
    heard = {job.voice.variant for job in train}
    said = {job.text for job in train}
    words = Counter(word for job in train for word in job.text.split())
    assert len({job.voice for job in train}) >= 16
    for name in ("valid", "test", "test_spell"):
        assert not heard & {job.voice.variant for job in jobs[name]}
        assert not said & {job.text for job in jobs[name]}
        assert len({job.text for job in jobs[name]}) == len(jobs[name])
        new = {word for job in jobs[name] for word in job.text.split()} - words.keys()
        assert not new, f"{name} has words that train lacks"
    main = {word for job in jobs["test"] for word in job.text.split()}
    assert len(main) >= 160
    assert min(words[word] for word in main) >= 8
    assert all(3 <= len(job.text.split()) <= 9 for job in train)


def test_no_variant_speaks_in_two_splits():
    splits = [{voice.variant for voice in voices} for voices in VOICES.values()]
    assert sum(map(len, splits)) == len(set.union(*splits))
    speakers = [voice.speaker for voices in VOICES.values() for voice in voices]
    assert len(set(speakers)) == len(speakers)


def test_unseen_is_asserted(tmp_path):
    jobs = plan(Sizes(train=20, valid=2, test=6), tmp_path, 0, "flac")
    with pytest.raises(AssertionError, match="test and train both have"):
        assert_unseen("test", jobs["test"], [*jobs["train"], jobs["test"][3]])


def test_boundaries_tile_the_audio(tiny):
    _, data = tiny
    for one in data.values():
        assert one.boundaries is not None
        for utt, segmentation in one.boundaries.items():
            wave, rate = read_mono(one.wav[utt])
            assert rate == 16000
            assert np.all(np.diff(segmentation.ends, prepend=0) > 0)
            assert segmentation.ends[-1] == pytest.approx(len(wave) / rate, abs=1e-5)
            assert segmentation.phones is not None
            assert segmentation.phones[0] == segmentation.phones[-1] == SILENCE
            assert 0.05 < np.abs(wave).max() <= 1.0


def test_boundaries_are_where_the_sound_changes(tiny):
    """Vowels are loud, silence is not, and a shift of 100 ms would be seen."""
    _, data = tiny
    levels: dict[str, list[float]] = {"sil": [], "vowel": [], "shifted": []}
    for one in data.values():
        assert one.boundaries is not None
        for utt, segmentation in one.boundaries.items():
            wave, rate = read_mono(one.wav[utt])
            wave = wave / np.sqrt(np.mean(wave**2))
            ends = np.round(segmentation.ends * rate).astype(int)
            starts = np.concatenate([[0], ends[:-1]])
            phones = segmentation.phones
            assert phones is not None
            for start, end, phone in zip(starts, ends, phones, strict=True):
                power = float(np.mean(wave[start:end] ** 2))
                if phone == SILENCE:
                    levels["sil"].append(power)
                elif phone[0] in "aeiouAEIOU3@V0":
                    levels["vowel"].append(power)
            # the first 100 ms after the leading silence are speech
            levels["shifted"].append(float(np.mean(wave[ends[0] :][:1600] ** 2)))
    decibel = {name: 10 * np.log10(np.median(v)) for name, v in levels.items()}
    assert decibel["vowel"] > decibel["sil"] + 15
    assert decibel["shifted"] > decibel["sil"] + 8


def test_statistics(tiny):
    root, data = tiny
    stats = json.loads((root / "data" / "stats.json").read_text())
    for name in SETS:
        texts = list((data[name].text or {}).values())
        assert stats[name]["utterances"] == len(texts) == len(data[name])
        assert stats[name]["words"] == sum(len(text.split()) for text in texts)
        assert 4 < stats[name]["phones_per_second"] < 16
    assert stats["test"]["bigram_perplexity"] > 1


def test_bigram_perplexity_by_hand():
    # 3 words in the vocabulary with </s> and <unk>; "A </s>" was seen twice in two
    expected = math.exp(-(math.log(2.1 / 2.3) + math.log(2.1 / 2.3)) / 2)
    assert bigram_perplexity(["A", "A"], ["A"]) == pytest.approx(expected)
    unknown = math.exp(-(math.log(0.1 / 2.3) + math.log(0.1 / 0.3)) / 2)
    assert bigram_perplexity(["A", "A"], ["B"]) == pytest.approx(unknown)


def test_espeak_is_a_function_of_its_arguments():
    first = synthesise("turn on the light", Prosody("en-us+f2"), seed=1)
    synthesise("something else", Prosody("en-gb-scotland+m3", rate=190), seed=2)
    again = synthesise("turn on the light", Prosody("en-us+f2"), seed=1)
    np.testing.assert_array_equal(first.wave, again.wave)
    assert first.phones == again.phones
    assert [phone for phone in first.phones if phone != SILENCE][:3] == ["t", "3:", "n"]
    slow = synthesise("turn on the light", Prosody("en-us+f2", rate=100), seed=1)
    assert len(slow.wave) > 1.3 * len(first.wave)


def test_unknown_voice():
    with pytest.raises(ValueError, match="no voice 'xx-nowhere'"):
        synthesise("hello", Prosody("xx-nowhere"))


def test_jitter_differs_between_utterances_of_a_speaker(tmp_path):
    jobs = plan(Sizes(train=40, spell_share=0), tmp_path, 0, "flac")["train"]
    first, second = jobs[0], jobs[len(VOICES["train"])]
    assert first.voice == second.voice
    prosodies = {
        job.voice.prosody(np.random.default_rng(job.seed)) for job in (first, second)
    }
    assert len(prosodies) == 2
    assert not np.array_equal(record(first)[0], record(second)[0])


def test_grammar_that_is_too_small():
    rng = np.random.default_rng(0)
    grammar = {"S": ("A B C", "A B D")}
    with pytest.raises(ValueError, match="test: the grammar gave only"):
        sample_sentences(grammar, "test", 50, rng, unique=True)


def test_every_slot_is_defined():
    for grammar in GRAMMARS.values():
        used = {
            slot.strip("$")
            for texts in grammar.values()
            for text in texts
            for slot in text.split()
            if slot.startswith("$")
        }
        assert used | {"S"} == set(grammar)
        assert all(word.isalpha() and word.isupper() for word in word_types(grammar))


def test_buckets_are_a_tenth_each():
    rng = np.random.default_rng(0)
    for name in ("train", "valid", "test"):
        for sentence in sample_sentences(GRAMMARS["main"], name, 20, rng, unique=True):
            assert bucket(sentence) == name
    buckets = Counter(bucket(f"SENTENCE {number}") for number in range(5000))
    assert 400 < buckets["test"] < 600 and 400 < buckets["valid"] < 600
