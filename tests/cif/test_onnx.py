"""The operator exports to ONNX with dynamic frames and data-dependent units."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from espnet_ofa.cif import expand, integrate_and_fire

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


class ThereAndBack(nn.Module):
    """Frames to units to frames, every output of the operator."""

    def forward(self, frames: Tensor, weights: Tensor, lengths: Tensor):
        out = integrate_and_fire(frames, weights, lengths)
        back = expand(out.units, out.durations, frames.size(1))
        return out.units, out.lengths, out.durations, back


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "cif.onnx"
    rows, size = torch.export.Dim("rows", min=1), torch.export.Dim("size", min=2)
    example = torch.randn(2, 20, 4), torch.rand(2, 20), torch.tensor([20, 13])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            ThereAndBack(),
            example,
            dynamo=True,
            dynamic_shapes=({0: rows, 1: size}, {0: rows, 1: size}, {0: rows}),
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    return onnxruntime.InferenceSession(path)


@pytest.mark.parametrize(
    ("kind", "size", "rows"),
    [
        ("plain", 20, 2),
        ("plain", 3000, 1),
        ("heavy", 37, 3),
        ("light", 2, 1),
        ("ties", 600, 2),
        ("zeros", 50, 4),
    ],
)
def test_onnxruntime_equals_torch(make_case, session, kind, size, rows):
    case = make_case(size, kind, size, rows)
    names = [node.name for node in session.get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, case, strict=True)}
    got = session.run(None, feed)
    want = ThereAndBack()(*case)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(torch.from_numpy(a), b, atol=1e-5, rtol=1e-5)
