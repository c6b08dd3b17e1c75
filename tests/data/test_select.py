"""Subsets and held-out sets."""

from __future__ import annotations

import pytest

from espnet_ofa.data import select


def test_held_out_speakers_are_disjoint_and_repeatable(make_data):
    data = make_data()
    train, valid = select.split_speakers(data, 1, seed=3)
    assert not set(train.spk2utt) & set(valid.spk2utt)
    assert sorted(train.utterances + valid.utterances) == data.utterances
    assert select.split_speakers(data, 1, seed=3)[1].wav == valid.wav
    chosen = {
        tuple(select.split_speakers(data, 1, seed=s)[1].spk2utt) for s in range(9)
    }
    assert len(chosen) == 2, "the seed has no effect"


def test_held_out_utterances(make_data):
    data = make_data()
    train, valid = select.split_utterances(data, 1)
    assert len(valid) == 1
    assert sorted(train.utterances + valid.utterances) == data.utterances


def test_by_hours_stays_below_the_limit(make_data):
    data = make_data()
    for seed in range(5):
        chosen = select.by_hours(data, 2.6 / 3600, seed)
        seconds = sum(0.5 * (int(utt[-1]) + 1) for utt in chosen.utterances)
        assert 0 < seconds <= 2.6
    assert len(select.by_hours(data, 1.0)) == len(data)


def test_by_number_and_speaker(make_data):
    data = make_data()
    assert len(select.by_number(data, 3)) == 3
    assert select.by_speakers(data, ["bert"]).utterances == ["bert-2", "bert-3"]
    rest, held_out = select.split_speakers(data)  # a tenth of two: one
    assert sorted(map(len, (rest, held_out))) == [2, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: select.by_speakers(data, ["carl"]), "no such speaker: carl"),
        (lambda data: select.by_number(data, 5), "5 utterances asked for"),
        (lambda data: select.split_speakers(data, 2), "2 speakers to hold out of 2"),
        (lambda data: select.split_utterances(data, 4), "4 utterances to hold out"),
    ],
)
def test_errors(make_data, call, message):
    with pytest.raises(ValueError, match=message):
        call(make_data())
