"""Forced alignment against all paths there are."""

from itertools import groupby, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_ofa.pretrain.ctc_alignment import ctc_path, label_starts


def reads_as(path, blank):
    return [symbol for symbol, _ in groupby(path) if symbol != blank]


@settings(max_examples=60, deadline=None)
@given(
    units=st.integers(1, 6),
    labels=st.lists(st.integers(1, 2), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
def test_best_of_all_paths(units, labels, seed):
    log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(3), units))
    paths = [p for p in product(range(3), repeat=units) if reads_as(p, 0) == labels]
    if not paths:
        with pytest.raises(ValueError, match=f"{len(labels)} labels need from 1 to"):
            ctc_path(log_probs, np.array(labels))
        return
    places = ctc_path(log_probs, np.array(labels))
    said = [labels[place] if place >= 0 else 0 for place in places]
    assert reads_as(said, 0) == labels
    assert [k for k, _ in groupby(p for p in places if p >= 0)] == [*range(len(labels))]

    def price(path):
        return log_probs[np.arange(units), path].sum()

    assert price(said) == pytest.approx(max(map(price, paths)))


def test_blank_need_not_be_zero():
    log_probs = np.log([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    path = ctc_path(log_probs, np.array([0]), blank=1)
    assert path.tolist() == [-1, 0, -1]
    with pytest.raises(ValueError, match="0 labels"):
        ctc_path(log_probs, np.array([], int))


def test_labels_begin_with_the_unit_that_says_them():
    path = np.array([-1, 0, 0, -1, -1, 1, 2, -1])
    durations = np.array([1.0, 2.0, 1.5, 3.0, 1.0, 2.5, 4.0, 1.0])
    assert label_starts(path, durations).tolist() == [1.0, 8.5, 11.0]
    assert label_starts(path[1:], durations[1:]).tolist() == [0.0, 7.5, 10.0]


@given(seed=st.integers(0, 999))
def test_labels_begin_one_after_the_other_whatever_units_last(seed):
    rng = np.random.default_rng(seed)
    durations = rng.uniform(0.1, 9.0, 30)
    labels = rng.integers(1, 5, rng.integers(1, 14))
    path = ctc_path(np.log(rng.dirichlet(np.ones(5), 30)), labels)
    starts = label_starts(path, durations)
    assert len(starts) == len(labels) and (np.diff(starts) > 0).all()
    assert starts[0] >= 0 and starts[-1] < durations.sum()
