"""Masks: share, spans in time, units that follow frames."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_ofa.pretrain.masked import (
    draw_frame_mask,
    frames_inside,
    majority_hits,
    unit_mask_from_frames,
)
from espnet_ofa.subsampling.lengths import valid_mask


@pytest.mark.parametrize(("span_ms", "share"), [(200, 0.5), (100, 0.3), (20, 0.65)])
def test_share_and_span_are_as_asked(span_ms, share):
    mask = draw_frame_mask(torch.full((64,), 1000), 1000, span_ms, share)
    assert mask.float().mean().item() == pytest.approx(share, abs=0.03)
    starts = mask[:, 1:] & ~mask[:, :-1]
    ends = mask[:, :-1] & ~mask[:, 1:]
    for row, begin, end in zip(mask, starts, ends, strict=True):
        first = begin.nonzero()[:, 0] + 1
        last = end.nonzero()[:, 0] + 1
        last = last[last > first[0]]
        runs = last - first[: len(last)]
        assert row.any() and int(runs.min()) >= span_ms // 20


def test_padding_is_never_masked():
    lengths = torch.tensor([30, 7, 0])
    mask = draw_frame_mask(lengths, 30, 60, 0.9)
    assert not mask[~valid_mask(lengths, 30)].any()


@pytest.mark.parametrize(("span_ms", "share"), [(200, 0.0), (200, 1.0), (5, 0.5)])
def test_bad_masks_are_named(span_ms, share):
    with pytest.raises(ValueError, match="mask"):
        draw_frame_mask(torch.tensor([10]), 10, span_ms, share)


@given(st.data())
def test_half_of_the_duration_decides(data):
    units = data.draw(st.integers(2, 8))
    sizes = data.draw(
        st.lists(st.integers(1, 4), min_size=units, max_size=units), label="frames"
    )
    total = sum(sizes)
    flags = data.draw(st.lists(st.booleans(), min_size=total, max_size=total))
    frame_mask = torch.tensor([flags])
    durations = torch.tensor([sizes]).float()
    mask = unit_mask_from_frames(frame_mask, durations, torch.tensor([units]))[0]
    shares = torch.stack([x.float().mean() for x in frame_mask[0].split(sizes)])
    wanted = shares >= 0.5
    assert mask.any() and not mask.all()
    if wanted.any() and not wanted.all():
        assert torch.equal(mask, wanted)


def test_fractional_durations():
    # Units cover [0, 1.5), [1.5, 4); frame 1 is masked, half of it in each unit.
    mask = unit_mask_from_frames(
        torch.tensor([[False, True, False, False]]),
        torch.tensor([[1.5, 2.5]]),
        torch.tensor([2]),
    )
    assert mask.tolist() == [[True, False]]  # 1/3 and 1/5: the larger share is taken


def test_a_single_unit_is_masked_and_padding_is_not():
    mask = unit_mask_from_frames(
        torch.zeros(2, 3, dtype=torch.bool),
        torch.tensor([[3.0, 0.0], [1.0, 2.0]]),
        torch.tensor([1, 2]),
    )
    assert mask[0].tolist() == [True, False]
    assert mask[1].sum() == 1


def test_frames_inside_are_wholly_covered():
    unit_mask = torch.tensor([[True, False, True]])
    inside = frames_inside(unit_mask, torch.tensor([[2.5, 1.5, 2.0]]), 6)
    assert inside.tolist() == [[True, True, False, False, True, True]]


def test_majority_hits_count_the_commonest_code_of_each_unit():
    targets = torch.tensor([[0, 0, 1, 2, 3, 3, 4], [5, 5, 5, -1, -1, -1, -1]])
    durations = torch.tensor([[2.0, 2, 2, 1], [1.5, 1.5, 0, 0]])
    every = targets >= 0
    assert majority_hits(targets[:1], every[:1], durations[:1], 6) == 2 + 1 + 2 + 1
    assert majority_hits(targets, every, durations, 6) == 6 + 3
    assert majority_hits(targets, every, 2 * durations, 6) == 4 + 3
    assert majority_hits(targets, every & (targets != 3), durations, 6) == 4 + 3


def test_a_frame_belongs_to_the_unit_over_its_middle():
    targets = torch.tensor([[0, 1, 1, 1]])
    every = torch.ones_like(targets, dtype=torch.bool)
    assert majority_hits(targets, every, torch.tensor([[1.4, 2.6]]), 2) == 4
    assert majority_hits(targets, every, torch.tensor([[1.6, 2.4]]), 2) == 3
