"""Boundary scores, by hand and by brute force."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_ofa.report.segments import (
    BoundaryScore,
    boundary_table,
    count_hits,
    evenly_spaced,
)


def test_by_hand():
    score = BoundaryScore()
    true = np.array([0.10, 0.20, 0.30, 0.40, 0.50])
    found = np.array([0.12, 0.221, 0.39, 0.41, 0.44, 0.50])
    score.add(found, true)  # 0.12 and one of 0.39 and 0.41; ends do not count
    assert (score.hits, score.found, score.true) == (2, 5, 4)
    assert score.precision == pytest.approx(2 / 5)
    assert score.recall == pytest.approx(2 / 4)
    assert score.f1 == pytest.approx(4 / 9)
    assert score.segment_ms == pytest.approx(500 / 6)
    # Recall 0.5, a quarter too many: r1 = |(.5, .25)|, r2 = (-.25 + .5 - 1) / sqrt 2.
    r1, r2 = np.hypot(0.5, 0.25), 0.75 / np.sqrt(2)
    assert score.r_value == pytest.approx(1 - (r1 + r2) / 2)


def test_perfect_and_empty():
    score = BoundaryScore()
    ends = np.array([0.1, 0.3, 1.0])
    score.add(ends, ends)
    assert (score.precision, score.recall, score.f1, score.r_value) == (1, 1, 1, 1)
    none = BoundaryScore()
    none.add(np.array([1.0]), ends)
    assert none.recall == 0 and np.isnan(none.precision) and none.f1 == 0
    assert np.isnan(BoundaryScore().r_value)


def test_the_number_alone_earns_no_r_value():
    true = np.arange(1, 11) / 10
    every, even = BoundaryScore(), BoundaryScore()
    every.add(np.arange(1, 51) / 50, true)
    even.add(evenly_spaced(true[1:] - 0.013 * np.arange(9) % 0.1), true)
    assert every.recall == 1 and every.r_value < 0 < every.f1


times = st.lists(st.integers(0, 30), max_size=5, unique=True).map(sorted)


@given(found=times, true=times)
def test_as_many_pairs_as_can_be(found, true):
    a, b = np.array(found, float), np.array(true, float)
    if len(a) > len(b):
        a, b = b, a
    best = max(
        int((np.abs(a - np.array(chosen)[: len(a)]) <= 2).sum()) if len(a) else 0
        for chosen in permutations(b)
    )
    assert count_hits(np.array(found), np.array(true), 2.0) == best


def test_exactly_the_tolerance_is_a_hit():
    steps = np.arange(1, 200) * 0.02
    assert count_hits(steps, steps + 0.02, 0.02) == len(steps)
    assert count_hits(steps, steps + 0.0201, 0.0199) == len(steps) - 1


def test_evenly_spaced_are_as_many_in_the_same_time():
    ends = np.array([0.1, 0.15, 0.9, 1.2])
    assert evenly_spaced(ends) == pytest.approx([0.3, 0.6, 0.9, 1.2])


def test_table():
    score, even = BoundaryScore(), BoundaryScore()
    true = np.array([0.1, 0.3, 1.0])
    score.add(true, true)
    even.add(evenly_spaced(true), true)
    table = boundary_table([("codes", score, even)])
    assert "| codes      | 333.3        | 100.0     | 100.0  | 100.0 |" in table
