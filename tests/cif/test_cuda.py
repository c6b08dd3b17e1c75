"""What only a GPU can show: compiled kernels, and no synchronisation."""

import pytest
import torch

from espnet_ofa.cif import expand, integrate_and_fire

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device"
)


@pytest.mark.parametrize("name", ["eager", "triton"])
@pytest.mark.parametrize("kind", ["plain", "ties", "zeros", "heavy", "light"])
@pytest.mark.parametrize(
    ("size", "dtype", "options"),
    [
        (700, torch.bfloat16, {}),
        (3000, torch.float32, {}),
        (700, torch.float32, {"threshold": 0.7}),
        (700, torch.float32, {"threshold": 2.5, "tail_threshold": 0.1}),
        (700, torch.float32, {"num_units": 40}),  # some units are merged
        (3000, torch.float32, {"num_units": 3500, "threshold": 1.25}),
    ],
)
def test_equals_the_reference(make_case, name, kind, size, dtype, options):
    if name == "triton":
        pytest.importorskip("triton", reason="triton is not installed")
    case = make_case(11, kind, size, dtype=dtype)
    results = []
    for device, backend in (("cpu", "reference"), ("cuda", name)):
        frames = case.frames.to(device).requires_grad_()
        weights = case.weights.float().to(device).requires_grad_()
        out = integrate_and_fire(
            frames, weights, case.lengths.to(device), backend=backend, **options
        )
        out.units.float().square().sum().backward()
        results.append([out.units, out.durations, frames.grad, weights.grad])
        results[-1] += [out.lengths, out.merged]
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    *wanted, merged = results[0]
    *found, found_merged = results[1]
    for want, got in zip(wanted, found, strict=True):
        scale = 1 + want.abs().max().item()
        torch.testing.assert_close(
            got.cpu(), want, atol=tolerance * scale, rtol=tolerance
        )
    assert wanted[-1].tolist() == found[-1].tolist()
    assert merged.tolist() == found_merged.tolist()


@pytest.mark.parametrize("name", ["eager", "auto"])
@pytest.mark.parametrize("value", [torch.nan, -7.0, torch.inf])
def test_bad_input_leaves_the_process_alive(make_case, name, value):
    frames, weights, lengths = (x.cuda() for x in make_case(0, "plain", 50))
    weights[1, 0] = value
    out = integrate_and_fire(frames, weights, lengths + 9, num_units=9, backend=name)
    torch.cuda.synchronize()
    assert out.units[0].isfinite().all()
    with pytest.raises(ValueError, match="row 1, frame 0: weight"):
        integrate_and_fire(frames, weights, lengths, backend=name)


@pytest.mark.parametrize("name", ["eager", "auto"])
def test_no_synchronisation_with_num_units(make_case, name):
    frames, weights, lengths = (x.cuda() for x in make_case(0, "plain", 50))
    frames.requires_grad_()
    weights.requires_grad_()

    def step():
        out = integrate_and_fire(frames, weights, lengths, num_units=60, backend=name)
        (out.units.sum() + expand(out.units, out.durations, 50).sum()).backward()

    step()  # compile first
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
