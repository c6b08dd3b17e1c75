"""Guidance: zero where alpha is right, blind to padding, gradients that pull."""

import pytest
import torch

from espnet_ofa.subsampling.guidance import (
    cardinality_loss,
    frame_loss,
    pseudo_alpha_from_boundaries,
    segment_loss,
)

# Two utterances: 6 frames in segments of 2, 3, 1; 4 frames in one segment of 4.
BOUNDARIES = torch.tensor([[2, 5, 6], [4, -1, -1]])
COUNTS = torch.tensor([3, 1])
LENGTHS = torch.tensor([6, 4])
PSEUDO = torch.tensor(
    [[1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3, 1.0], [1 / 4, 1 / 4, 1 / 4, 1 / 4, 0, 0]]
)


def test_pseudo_alpha_sums_to_one_on_each_segment():
    alpha = pseudo_alpha_from_boundaries(BOUNDARIES, COUNTS, 6)
    torch.testing.assert_close(alpha, PSEUDO)


def test_right_alpha_costs_nothing():
    assert frame_loss(PSEUDO, PSEUDO, LENGTHS) == 0
    assert segment_loss(PSEUDO, BOUNDARIES, COUNTS).item() == pytest.approx(0, abs=1e-6)
    assert cardinality_loss(PSEUDO, LENGTHS, 4 / 10).item() == pytest.approx(
        0, abs=1e-6
    )


def test_losses_are_means_over_true_entries():
    alpha = torch.zeros(2, 6)
    # Ends want 1, 2, 3 and 1 units: 7 missing over 4 segments.
    assert segment_loss(alpha, BOUNDARIES, COUNTS).item() == pytest.approx(7 / 4)
    assert frame_loss(alpha, PSEUDO, LENGTHS).item() == pytest.approx(4 / 10)
    assert cardinality_loss(alpha, LENGTHS, 0.25).item() == pytest.approx(1.0)


def test_padding_counts_nowhere():
    wide = torch.nn.functional.pad
    garbage = wide(PSEUDO, (0, 3))
    garbage[1, 4:] = 0.0  # alpha itself is zero on padding
    more = wide(BOUNDARIES, (0, 2), value=-1)
    torch.testing.assert_close(
        segment_loss(garbage * 0.5, more, COUNTS),
        segment_loss(PSEUDO * 0.5, BOUNDARIES, COUNTS),
    )
    torch.testing.assert_close(
        frame_loss(garbage * 0.5, wide(PSEUDO, (0, 3), value=9.0), LENGTHS),
        frame_loss(PSEUDO * 0.5, PSEUDO, LENGTHS),
    )


def test_descent_on_guidance_finds_the_segments():
    logits = torch.full((2, 6), -1.0, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        alpha = torch.sigmoid(logits)
        loss = segment_loss(alpha, BOUNDARIES, COUNTS) + frame_loss(
            alpha, PSEUDO, LENGTHS
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    inside = PSEUDO > 0
    assert (torch.sigmoid(logits) - PSEUDO)[inside].abs().max() < 0.1


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="boundaries"):
        segment_loss(PSEUDO, BOUNDARIES[:1], COUNTS)
