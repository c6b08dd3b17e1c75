"""Turns, parts and summaries: who is called how often, and what is added up."""

from types import SimpleNamespace

import pytest

from espnet_ofa.bench import results
from espnet_ofa.bench.parts import PartTimer
from espnet_ofa.bench.processes import run_fresh
from espnet_ofa.bench.timing import Timing, interleave


def test_sides_take_turns(clock):
    log: list[str] = []
    sides = {name: clock.work(1e-3, log, name) for name in "ab"}
    found = interleave(sides, rounds=3, block=2)
    assert "".join(log) == "aabb" + 3 * "aaabbb"  # the first of a block is not counted
    assert found["a"] == Timing(pytest.approx(1e-3), *2 * [pytest.approx(1e-3)], 6)


def test_slow_sides_have_fewer_calls(clock):
    log: list[str] = []
    sides = {"slow": clock.work(3.0, log, "s"), "fast": clock.work(1e-3, log, "f")}
    found = interleave(sides, rounds=20, block=2, most_seconds=10)
    assert log.count("s") == 4  # 12 s: the first turn that is not over ten
    assert found["slow"].calls == 2  # two were to warm up
    assert found["fast"].calls == 40


def test_quartiles():
    found = Timing.of([5.0, 1.0, 2.0, 3.0, 4.0])
    assert found == Timing(3.0, 2.0, 4.0, 5)
    assert Timing.of([2.0]) == Timing(2.0, 2.0, 2.0, 1)


def test_a_part_does_not_pay_for_what_it_calls(clock):
    inner = SimpleNamespace(run=clock.work(2.0))

    def outer_run():
        clock.time += 1.0
        inner.run()
        clock.time += 4.0

    outer = SimpleNamespace(run=outer_run)
    before = dict(vars(inner)), dict(vars(outer))
    timer = PartTimer()
    timer.wrap(inner, "run", "inner")
    timer.wrap(outer, "run", "outer")
    clock.time += 100.0  # nobody's
    with timer.part("around"):
        clock.time += 8.0
        outer.run()
    assert timer.seconds == {"inner": 2.0, "outer": 5.0, "around": 8.0}
    timer.reset()
    assert set(timer.seconds.values()) == {0.0}
    timer.unwrap()
    assert (vars(inner), vars(outer)) == before


def test_processes_become_one_number():
    answers = [
        {
            "rows": [
                {"lam": 0.5, "seconds": s, "low": 0.0, "high": 9.0, "parts": {"a": s}}
            ]
        }
        for s in (3.0, 1.0, 2.0)
    ]
    (row,) = results.merge(answers, "rows")
    assert (row["seconds"], row["low"], row["high"]) == (2.0, 1.0, 3.0)
    assert row["parts"] == {"a": 2.0}
    (row,) = results.merge(answers[:1], "rows")
    assert (row["seconds"], row["low"], row["high"]) == (3.0, 0.0, 9.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.0123"),
        (1.0, "1"),
        (999.6, "1,000"),
        (123.4, "123"),
        (1234567, "1,230,000"),
        (0, "0"),
        (None, None),
    ],
)
def test_numbers(value, text):
    assert results.number(value) == text


def test_a_fresh_process_answers_or_says_why(tmp_path):
    job = {"kind": "roofline", "device": "cpu", "rounds": 1, "most_seconds": 0.02}
    options = {"processes": 1, "threads": 1, "allocator": "keep"}
    (answer,) = run_fresh({**job, "size": 16}, **options)
    assert answer["copy_bytes_per_second"]["warm"] > 0
    assert set(answer["macs_per_second"]) == {"float32", "bfloat16"}
    with pytest.raises(RuntimeError, match="no benchmark is called 'nothing'"):
        run_fresh({**job, "kind": "nothing"}, **options)
