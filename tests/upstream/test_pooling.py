"""Query and key-value pooling: against a loop, and what they must leave alone."""

import pytest
import torch
from torch.nn import functional as F

from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.upstream.attention import Padded, SelfAttention
from espnet_ofa.upstream.pooling import Pooling
from espnet_ofa.upstream.transformer import Transformer

DIM, HEADS = 8, 2
LENGTHS = torch.tensor([11, 4, 1])


def attention():
    torch.manual_seed(0)
    return SelfAttention(DIM, HEADS, dropout=0.0).eval()


def averages(x, factor):
    return torch.stack([part.mean(0) for part in x.split(factor)])


def by_hand(layer, x, query, key):
    """(U, D) of one utterance, head by head and window by window."""
    weights = layer.qkv.weight.chunk(3), layer.qkv.bias.chunk(3)
    (wq, wk, wv), (bq, bk, bv) = weights
    q = averages(x, query) @ wq.T + bq
    k, v = (averages(x, key) @ w.T + b for w, b in ((wk, bk), (wv, bv)))
    width = DIM // HEADS
    heads = []
    for h in range(HEADS):
        part = slice(h * width, (h + 1) * width)
        scores = q[:, part] @ k[:, part].T / width**0.5
        heads.append(scores.softmax(-1) @ v[:, part])
    z = torch.cat(heads, -1) @ layer.out.weight.T + layer.out.bias
    return torch.stack([z[t // query] for t in range(len(x))])


@pytest.mark.parametrize("query", [1, 2, 5])
@pytest.mark.parametrize("key", [1, 3, 20])
def test_attention_equals_the_loop_whatever_the_padding(query, key):
    layer, x = attention(), torch.randn(3, 11, DIM)
    x[~valid_mask(LENGTHS, 11)] = 1e4
    with torch.no_grad():
        found, _ = layer(x, Pooling(LENGTHS, 11, query, key))
        for row, n in enumerate(LENGTHS.tolist()):
            wanted = by_hand(layer, x[row, :n], query, key)
            torch.testing.assert_close(found[row, :n], wanted, atol=1e-5, rtol=1e-4)


def test_a_window_is_seen_if_any_of_its_units_is():
    mask = Pooling(LENGTHS, 11, query=1, key=3).mask
    assert mask is not None and mask.shape == (3, 1, 1, 4)
    assert mask[:, 0, 0].tolist() == [[True] * 4, [True, True, False, False]] + [
        [True, False, False, False]
    ]


def test_without_pooling_nothing_changes():
    layer, x = attention(), torch.randn(3, 11, DIM)
    one = layer(x, Pooling(LENGTHS, 11, 1, 1))[0]
    torch.testing.assert_close(one, layer(x, Padded(LENGTHS, 11))[0])


@pytest.mark.parametrize(("query", "key"), [(2, 1), (1, 2), (3, 4)])
def test_units_and_gradients_stay_whole(query, key):
    torch.manual_seed(0)
    model = Transformer(DIM, 2, HEADS, 12, pos_kernel=3, pos_groups=1)
    x = torch.randn(3, 11, DIM, requires_grad=True)
    out = model(x, LENGTHS, scope=Pooling(LENGTHS, 11, query, key))
    assert [y.shape for y in out.states] == [(3, 11, DIM)] * 3
    assert torch.equal(out.lengths, LENGTHS) and not out.merges
    F.layer_norm(out.states[-1][0], (DIM,)).square().sum().backward()
    assert x.grad is not None and (x.grad[0] != 0).any(-1).all()
    assert (x.grad[1:] == 0).all()
    assert all(p.grad is not None for p in model.layers.parameters())
