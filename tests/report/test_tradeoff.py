"""From decode dirs to rows, and the Pareto front."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_ofa.report.stats import DecodeStats, load_stats, merge_stats
from espnet_ofa.report.tradeoff import (
    collect_rows,
    find_decode_dirs,
    on_front,
    pareto_front,
)

WRONG = {"u1": "one two", "u2": "four five"}


def test_measures_follow_from_sums():
    stats = DecodeStats(
        "test",
        units=50,
        frames=100,
        frame_seconds=2.0,
        audio_seconds=2.01,
        encoder_seconds=0.3,
        decode_seconds=0.1,
        macs=6e6,
        macs_seconds=3.0,
    )
    assert stats.period_ms == pytest.approx(40.0)
    assert stats.units_per_second == pytest.approx(50 / 2.01)
    assert stats.macs_per_second == pytest.approx(2e6)
    assert stats.rtf == pytest.approx(0.4 / 2.01)
    assert stats.encoder_rtf == pytest.approx(0.3 / 2.01)


def test_period_without_frames_comes_from_the_audio():
    assert DecodeStats("test", units=50, audio_seconds=2.0).period_ms == 40.0
    assert math.isnan(DecodeStats("test").period_ms)


def test_stats_survive_the_file(tmp_path, decoded):
    stats = decoded(tmp_path / "lam0" / "test", 0.0, 200)
    assert load_stats(tmp_path / "lam0" / "test") == stats
    content = json.loads((tmp_path / "lam0" / "test" / "stats.json").read_text())
    assert content["derived"]["period_ms"] == 20.0


def test_bad_stats(tmp_path):
    with pytest.raises(FileNotFoundError, match="asr_inference --lam"):
        load_stats(tmp_path)
    for text in ("{", '{"test_set": "a", "speed": 1}', "[]"):
        (tmp_path / "stats.json").write_text(text)
        with pytest.raises(ValueError, match="stats.json: .*expected the keys"):
            load_stats(tmp_path)


def test_jobs_add_up():
    half = DecodeStats("a", 0.5, units=3, audio_seconds=1.0, macs=1.0, infeasible=1)
    total = merge_stats([half, half])
    assert (total.units, total.audio_seconds, total.macs) == (6, 2.0, 2.0)
    assert (total.infeasible, total.frames) == (2, None)
    with pytest.raises(ValueError, match="cannot add up b at lambda 0.5"):
        merge_stats([half, DecodeStats("b", 0.5)])
    other = DecodeStats("a", 0.5, model_sha256="ab")  # trained anew in between
    with pytest.raises(ValueError, match="cannot add up a at .* of model ab and"):
        merge_stats([half, other])
    with pytest.raises(ValueError, match="at least one"):
        merge_stats([])


def test_rows_are_scored_and_ordered(tmp_path, decoded):
    decoded(tmp_path / "dec" / "lam1" / "test", 1.0, 45, WRONG)
    decoded(tmp_path / "dec" / "lam0" / "test", 0.0, 200)
    decoded(tmp_path / "dec" / "lamown" / "test", 0.4, 140, adaptive=True)
    rows = collect_rows("ctc", tmp_path / "dec")
    assert [row.stats.lam for row in rows] == [0.0, 1.0, 0.4]  # learned ones last
    assert [row.wer for row in rows] == [0.0, 20.0, 0.0]
    assert rows[1].as_dict()["deletions"] == 1
    assert on_front(rows) == [False, True, True]  # 140 units are cheaper than 200
    assert (tmp_path / "dec" / "lam1" / "test" / "score_wer" / "result.txt").is_file()


def test_jobs_are_joined(tmp_path, decoded):
    jobs = tmp_path / "dec" / "logdir"
    decoded(jobs / "output.1" / "lam0" / "test", 0.0, 120, {"u1": "one two three"})
    decoded(jobs / "output.2" / "lam0" / "test", 0.0, 80, {"u2": "four"})
    assert find_decode_dirs(tmp_path) == [tmp_path / "dec"]
    (row,) = collect_rows("ctc", tmp_path / "dec")
    assert (row.stats.units, row.stats.utterances) == (200, 2)
    assert row.wer == 20.0
    assert collect_rows("ctc", tmp_path / "dec")[0].as_dict() == row.as_dict()
    (jobs / "output.2" / "lam0" / "test" / "text").write_text("u1 again\n")
    with pytest.raises(ValueError, match="u1 was decoded by two jobs"):
        collect_rows("ctc", tmp_path / "dec")


def test_what_is_missing_is_named(tmp_path, decoded, reference):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        find_decode_dirs(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no lam"):
        find_decode_dirs(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such decode dir"):
        collect_rows("ctc", tmp_path / "nowhere")
    (tmp_path / "dec").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no lam"):
        collect_rows("ctc", tmp_path / "dec")
    folder = tmp_path / "dec" / "lam0" / "test"
    decoded(folder, 0.0, 200, {"u1": "one two three"})
    with pytest.raises(ValueError, match=r"test: 1 of 2 .*not decoded: u2"):
        collect_rows("ctc", tmp_path / "dec")
    moved = reference.rename(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="--test_set test:DATA_DIR"):
        collect_rows("ctc", tmp_path / "dec")
    (folder / "text").write_text("u1 one two three\nu2 four five\n")
    assert collect_rows("ctc", tmp_path / "dec", {"test": str(moved)})[0].wer == 0
    (folder / "stats.json").unlink()  # an interrupted decoding
    with pytest.raises(FileNotFoundError, match="lam0/test/stats.json: no such file"):
        collect_rows("ctc", tmp_path / "dec")


points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1)


@given(points)
def test_front_beats_everything_else(values):
    front = [p for p, flag in zip(values, pareto_front(values), strict=True) if flag]
    assert front
    for point in values:
        weak = [f for f in front if f[0] <= point[0] and f[1] <= point[1]]
        assert weak  # somebody on the front is at least as good
        assert (point in front) == all(f == point for f in weak)


def test_nan_is_never_on_the_front():
    assert pareto_front([(math.nan, 0.0), (1.0, 1.0)]) == [False, True]
