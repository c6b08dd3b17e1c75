"""The end of an utterance, and the bound on units."""

import pytest
import torch

from espnet_ofa.cif import integrate_and_fire

FRAMES = torch.tensor([[[1.0], [2.0], [4.0], [8.0]]])


def call(weights, backend, **options):
    return integrate_and_fire(
        FRAMES, torch.tensor([weights]), backend=backend, **options
    )


@pytest.fixture(params=["reference", "eager"])
def backend(request):
    return request.param


def test_a_heavy_tail_is_one_more_unit_scaled(backend):
    out = call([1.0, 0.0, 0.25, 0.25], backend)
    assert out.units.flatten().tolist() == [1.0, 6.0]
    # The zero-weight frame comes when the second unit is open.
    assert out.durations.tolist() == [[1.0, 3.0]]


def test_a_light_tail_leaves_only_its_frames(backend):
    out = call([0.5, 0.5, 0.25, 0.125], backend)
    assert out.units.flatten().tolist() == [1.5]
    assert out.durations.tolist() == [[4.0]]


def test_a_light_utterance_is_one_unit(backend):
    out = call([0.0, 0.1, 0.1, 0.0], backend)
    torch.testing.assert_close(out.units, torch.tensor([[[3.0]]]))
    assert out.durations.tolist() == [[4.0]]


@pytest.mark.parametrize("weight", [0.0, 1e-8])
def test_without_mass_it_is_the_mean(backend, weight):
    out = call([weight] * 4, backend, threshold=2.0)
    torch.testing.assert_close(out.units, torch.tensor([[[2 * 3.75]]]))


@pytest.mark.parametrize(("tail_threshold", "units"), [(0.25, 2), (0.26, 1)])
def test_the_tail_threshold_scales_with_the_threshold(backend, tail_threshold, units):
    out = call(
        [2.0, 2.0, 1.0, 0.0], backend, threshold=4.0, tail_threshold=tail_threshold
    )
    assert out.lengths.tolist() == [units]


@pytest.mark.parametrize(
    ("num_units", "want", "durations", "merged"),
    [
        (4, [1.0, 3.0, 8.0, 0.0], [1.0, 2.0, 1.0, 0.0], False),
        (3, [1.0, 3.0, 8.0], [1.0, 2.0, 1.0], False),
        (2, [1.0, (1 + 2 + 4) / 1.5], [1.0, 3.0], True),
        (1, [(1 + 1 + 2 + 4) / 2.5], [4.0], True),
    ],
)
def test_num_units_bounds_the_columns(backend, num_units, want, durations, merged):
    """Frames keep their own weights in a merged unit: the tail is not scaled first."""
    out = call([1.0, 0.5, 0.5, 0.5], backend, num_units=num_units)
    torch.testing.assert_close(out.units.flatten(), torch.tensor(want))
    torch.testing.assert_close(out.durations[0], torch.tensor(durations))
    assert out.merged.tolist() == [merged]
    assert out.lengths.tolist() == [min(3, num_units)]


def test_merging_leaves_a_dropped_tail_out(backend):
    out = call([1.0, 1.0, 1.0, 0.25], backend, num_units=2)
    torch.testing.assert_close(out.units.flatten(), torch.tensor([1.0, 3.0]))
    assert out.durations.tolist() == [[1.0, 3.0]]
