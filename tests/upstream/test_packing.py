"""Without gradients padding is not encoded, and nobody can tell from the result."""

import pytest
import torch
from torch import nn

from espnet_ofa.upstream.transformer import Transformer


def make(norm_first):
    torch.manual_seed(0)
    model = Transformer(32, 3, 4, 48, pos_kernel=6, pos_groups=2, norm_first=norm_first)
    return model.eval()


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("num_layers", [None, 2])
@pytest.mark.parametrize("sizes", [[7, 3, 1], [9, 9], [4], [9, 0, 2]])
def test_states_are_those_of_the_padded_batch(norm_first, num_layers, sizes):
    model, lengths = make(norm_first), torch.tensor(sizes)
    x = torch.randn(len(sizes), 9, 32)
    want = model(x, lengths, num_layers=num_layers).states
    with torch.no_grad():
        got = model(x, lengths, num_layers=num_layers).states
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        for row, n in enumerate(sizes):
            torch.testing.assert_close(a[row, :n], b[row, :n], atol=1e-5, rtol=1e-4)


def test_linear_layers_see_no_padding():
    model, seen = make(False), []
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda _, x, __: seen.append(x[0].shape[:2]))
    with torch.no_grad():
        model(torch.randn(3, 9, 32), torch.tensor([7, 3, 1]))
    assert set(seen) == {(1, 11)}
