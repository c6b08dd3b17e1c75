"""What only a GPU can show: compiled kernels, and no synchronisation."""

import pytest
import torch

from espnet_ofa.cif import expand, integrate_and_fire

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device"
)


@pytest.mark.parametrize("name", ["eager", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["plain", "ties", "zeros", "heavy", "light"])
def test_equals_the_reference(make_case, name, dtype, kind):
    if name == "triton":
        pytest.importorskip("triton", reason="triton is not installed")
    case = make_case(11, kind, 700, dtype=dtype)
    results = []
    for device, backend in (("cpu", "reference"), ("cuda", name)):
        frames = case.frames.to(device).requires_grad_()
        weights = case.weights.float().to(device).requires_grad_()
        out = integrate_and_fire(
            frames, weights, case.lengths.to(device), backend=backend
        )
        out.units.float().square().sum().backward()
        results.append([out.units, out.durations, frames.grad, weights.grad])
        results[-1].append(out.lengths)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    for want, got in zip(*results, strict=True):
        scale = 1 + want.abs().max().item()
        torch.testing.assert_close(
            got.cpu(), want, atol=tolerance * scale, rtol=tolerance
        )
    assert results[0][-1].tolist() == results[1][-1].tolist()


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
