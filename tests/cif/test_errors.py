"""Wrong input is named: what was expected, what was found, and where."""

import importlib.util

import pytest
import torch

from espnet_ofa.cif import StreamingCIF, expand, integrate_and_fire

FRAMES, WEIGHTS = torch.ones(2, 5, 3), torch.full((2, 5), 0.4)


@pytest.mark.parametrize(
    ("frames", "weights", "lengths", "message"),
    [
        (torch.ones(5, 3), WEIGHTS, None, r"frames .*got \(5, 3\)"),
        (torch.ones(2, 0, 3), torch.ones(2, 0), None, r"at least one.*\(2, 0, 3\)"),
        (FRAMES, torch.ones(2, 4), None, r"weights must be \(2, 5\).*got \(2, 4\)"),
        (FRAMES, WEIGHTS[..., None], None, r"weights must be .*got \(2, 5, 1\)"),
        (FRAMES, WEIGHTS, torch.tensor([5]), r"lengths must be \(2,\).*got \(1,\)"),
        (FRAMES, WEIGHTS, torch.ones(2), "lengths must be integers.*float32"),
        (FRAMES.long(), WEIGHTS, None, "frames must be floating point.*int64"),
        (FRAMES, WEIGHTS.int(), None, "weights must be floating point.*int32"),
    ],
)
def test_shapes_and_types(frames, weights, lengths, message):
    with pytest.raises(ValueError, match=message):
        integrate_and_fire(frames, weights, lengths)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "threshold must be > 0; got 0.0"),
        ({"threshold": float("nan")}, "threshold must be > 0; got nan"),
        ({"tail_threshold": 0.0}, r"tail_threshold must be in \[1e-06, 1\]; got 0.0"),
        ({"tail_threshold": 1.5}, r"tail_threshold must be in \[1e-06, 1\]; got 1.5"),
        ({"num_units": 0}, "num_units must be >= 1; got 0"),
        ({"backend": "cuda"}, "backend must be .*got 'cuda'"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        integrate_and_fire(FRAMES, WEIGHTS, **options)


@pytest.mark.parametrize("options", [{}, {"num_units": 4, "validate": True}])
@pytest.mark.parametrize("name", ["eager", "reference"])
def test_an_empty_utterance_names_its_row(name, options):
    with pytest.raises(ValueError, match="row 1 is empty"):
        integrate_and_fire(
            FRAMES, WEIGHTS, torch.tensor([5, 0]), backend=name, **options
        )


def test_a_length_beyond_the_frames_names_its_row():
    with pytest.raises(ValueError, match="row 0 has length 6, but only 5 frames"):
        integrate_and_fire(FRAMES, WEIGHTS, torch.tensor([6, 5]))


def test_an_unchecked_empty_utterance_is_silence():
    out = integrate_and_fire(FRAMES, WEIGHTS, torch.tensor([5, 0]), num_units=4)
    assert out.lengths.tolist() == [2, 0]
    assert (out.units[1] == 0).all() and (out.durations[1] == 0).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, -0.25])
@pytest.mark.parametrize("num_units", [None, 4])
def test_validate_names_row_and_frame(value, num_units):
    weights = WEIGHTS.clone()
    weights[1, 3] = value
    with pytest.raises(ValueError, match=f"row 1, frame 3: weight {value}, expected"):
        integrate_and_fire(FRAMES, weights, num_units=num_units, validate=True)
    # The same weight in the padding is nobody's business.
    integrate_and_fire(FRAMES, weights, torch.tensor([5, 3]), validate=True)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, -7.0, -0.25])
def test_bad_weights_are_refused_unasked(value):
    """The number of units is read anyway, so this check costs next to nothing."""
    weights = WEIGHTS.clone()
    weights[1, 3] = value
    with pytest.raises(ValueError, match=f"row 1, frame 3: weight {value}, expected"):
        integrate_and_fire(FRAMES, weights)
    with pytest.raises(ValueError, match=f"row 1, frame 3: weight {value}, expected"):
        StreamingCIF().push(FRAMES, weights)
    integrate_and_fire(FRAMES, weights, torch.tensor([5, 3]))  # in the padding


@pytest.mark.parametrize("num_units", [1, 4])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, -7.0, 1e30])
def test_unchecked_weights_spoil_only_their_row(backend, value, num_units):
    """Nor do they reach beyond a tensor, which would end a process on a GPU."""
    weights = WEIGHTS.clone()
    weights[1, 3] = value
    weights.requires_grad_()
    frames = FRAMES.clone().requires_grad_()
    options = {"num_units": num_units, "backend": backend}
    out = integrate_and_fire(frames, weights, **options)
    assert out.units.shape == (2, num_units, 3)
    assert 0 <= out.lengths[1] <= num_units
    (out.units[0].sum() + expand(out.units, out.durations, 5)[0].sum()).backward()
    alone = integrate_and_fire(FRAMES[:1], WEIGHTS[:1], **options)
    torch.testing.assert_close(out.units[:1], alone.units)
    assert frames.grad is not None and weights.grad is not None
    assert frames.grad[0].isfinite().all() and weights.grad[0].isfinite().all()


@pytest.mark.parametrize("lengths", [[5, 7], [5, -2]])
def test_unchecked_lengths_count_as_what_there_is(backend, lengths):
    options = {"num_units": 4, "backend": backend}
    out = integrate_and_fire(FRAMES, WEIGHTS, torch.tensor(lengths), **options)
    fit = torch.tensor(lengths).clamp(0, 5)
    want = integrate_and_fire(FRAMES, WEIGHTS, fit, **options)
    for got, wanted in zip(out, want, strict=True):
        torch.testing.assert_close(got, wanted)


def test_an_empty_row_of_nan_gives_zeros(backend):
    frames = FRAMES.clone()
    frames[1] = torch.nan
    weights = WEIGHTS.clone().requires_grad_()
    out = integrate_and_fire(
        frames, weights, torch.tensor([5, 0]), num_units=4, backend=backend
    )
    assert (out.units[1] == 0).all()
    out.units.sum().backward()
    assert weights.grad is not None and weights.grad.isfinite().all()


@pytest.mark.parametrize("num_units", [1, 4])
def test_so_does_a_batch_of_empty_rows(backend, num_units):
    frames = torch.full((2, 5, 3), torch.nan).requires_grad_()
    weights = WEIGHTS.clone().requires_grad_()
    lengths = torch.zeros(2, dtype=torch.long)
    out = integrate_and_fire(
        frames, weights, lengths, num_units=num_units, backend=backend
    )
    assert (out.units == 0).all() and (out.durations == 0).all()
    out.units.sum().backward()
    assert weights.grad is not None and (weights.grad == 0).all()
    assert frames.grad is not None and (frames.grad == 0).all()


def test_expand_names_its_own_arguments():
    with pytest.raises(ValueError, match=r"durations must be \(2, 5\).*got \(2, 4\)"):
        expand(FRAMES, torch.ones(2, 4), 3)
    with pytest.raises(ValueError, match="num_frames must be >= 1; got 0"):
        expand(FRAMES, WEIGHTS, 0)


def test_triton_absent_is_explained(monkeypatch):
    from espnet_ofa.cif import api

    monkeypatch.setattr(api, "_has_triton", lambda: False)
    with pytest.raises(ValueError, match="needs the package triton"):
        integrate_and_fire(FRAMES, WEIGHTS, backend="triton")


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
def test_triton_on_a_cpu_is_explained(monkeypatch):
    from espnet_ofa.cif import cuda

    monkeypatch.setattr(cuda, "is_interpreted", lambda: False)
    with pytest.raises(ValueError, match="needs CUDA tensors; got cpu"):
        integrate_and_fire(FRAMES, WEIGHTS, backend="triton")
