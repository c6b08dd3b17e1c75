"""Chunk by chunk gives what the whole utterance gives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_ofa.cif import StreamingCIF, integrate_and_fire
from espnet_ofa.cif.types import NO_MASS


def stream(cif, frames, weights, cuts):
    """Push chunks that end at ``cuts``; units and durations per row."""
    outs = [
        cif.push(frames[:, a:b], weights[:, a:b])
        for a, b in zip([0, *cuts], [*cuts, frames.size(1)], strict=True)
        if b > a
    ]
    tail = cif.flush()
    rows = []
    for b in range(frames.size(0)):
        parts = [(o.units[b], o.durations[b], o.lengths[b]) for o in (*outs, tail)]
        units = torch.cat([u[:n] for u, _, n in parts])
        durations = torch.cat([d[:n] for _, d, n in parts])
        if tail.lengths[b] == 0:
            durations[-1] += tail.durations[b, 0]
        rows.append((units, durations))
    return rows


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(["plain", "ties", "zeros", "heavy", "light"]),
    seed=st.integers(0, 10**6),
    cuts=st.lists(st.integers(0, 40), max_size=12).map(sorted),
    threshold=st.sampled_from([1.0, 0.7]),
    tail_threshold=st.sampled_from([0.5, 0.9]),
)
def test_streaming_equals_offline(
    make_case, kind, seed, cuts, threshold, tail_threshold
):
    frames, weights, _ = make_case(seed, kind, 40)
    options = {"threshold": threshold, "tail_threshold": tail_threshold}
    want = integrate_and_fire(frames, weights, **options)
    rows = stream(StreamingCIF(**options), frames, weights, cuts)
    for b, (units, durations) in enumerate(rows):
        count = want.lengths[b].item()
        assert len(units) == count
        close = torch.testing.assert_close
        close(units, want.units[b, :count], atol=1e-6, rtol=1e-5)
        close(durations, want.durations[b, :count], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("threshold", [1.0, 0.7])
@pytest.mark.parametrize("mass", [0.0, 0.8, 1.2])
def test_a_row_with_hardly_any_mass_is_one_unit_as_offline(make_case, threshold, mass):
    """Below ``NO_MASS`` it is the mean of all frames, above that of those with mass."""
    frames, weights, _ = make_case(4, "plain", 9)  # the other rows fire
    weights[0] = 0.0
    weights[0, 4] = mass * NO_MASS * threshold
    options = {"threshold": threshold}
    want = integrate_and_fire(frames, weights, **options)
    cif = StreamingCIF(**options)
    (units, durations), *_ = stream(cif, frames, weights, [3, 6])
    torch.testing.assert_close(units, want.units[0, :1])
    torch.testing.assert_close(durations, want.durations[0, :1])
    mean = frames[0].mean(0) if mass < 1 else frames[0, 4]
    torch.testing.assert_close(units[0], threshold * mean)


def test_a_unit_is_given_out_with_the_frame_that_completes_it():
    cif, frame = StreamingCIF(), torch.ones(1, 1, 2)
    counts = [
        cif.push(frame, torch.tensor([[weight]])).lengths.item()
        for weight in (0.5, 0.25, 0.25, 0.0, 2.5)
    ]
    assert counts == [0, 0, 1, 0, 2]
    assert cif.flush().lengths.item() == 1


def test_ties_survive_3000_single_frames():
    weights = torch.full((1, 3000), 1 / 3)
    frames = torch.ones(1, 3000, 1)
    ((units, durations),) = stream(
        StreamingCIF(), frames, weights, list(range(1, 3000))
    )
    assert len(units) == 1000
    # fp32 rounds 1/3 up: the units end ever earlier, the last one makes up for it.
    torch.testing.assert_close(durations, torch.full((1000,), 3.0), atol=1e-4, rtol=0)
    assert durations.double().sum().item() == pytest.approx(3000, abs=1e-4)


def test_flush_and_reset_start_anew(make_case):
    frames, weights, _ = make_case(4, "plain", 20)
    cif = StreamingCIF()
    first = stream(cif, frames, weights, [7])
    cif.push(frames[:1] * 9, weights[:1])
    cif.reset()
    for got, want in zip(stream(cif, frames, weights, [7]), first, strict=True):
        torch.testing.assert_close(got, want)


def test_dtype_is_that_of_the_frames(make_case):
    frames, weights, _ = make_case(4, "plain", 20, dtype=torch.bfloat16)
    cif = StreamingCIF()
    assert cif.push(frames, weights).units.dtype == torch.bfloat16
    assert cif.flush().units.dtype == torch.bfloat16


def test_errors():
    cif = StreamingCIF()
    with pytest.raises(ValueError, match="push\\(\\) at least one frame"):
        cif.flush()
    cif.push(torch.ones(2, 3, 4), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"\(1, 3, 4\) follows chunks of 2 rows"):
        cif.push(torch.ones(1, 3, 4), torch.ones(1, 3))
    with pytest.raises(ValueError, match="row 1, frame 0: weight nan"):
        cif.push(torch.ones(2, 1, 4), torch.tensor([[1.0], [torch.nan]]))
    with pytest.raises(ValueError, match="threshold must be > 0"):
        StreamingCIF(threshold=-1)
