"""Merging of adjacent units: against a loop, and the laws of lengths and durations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.upstream.merging import AdjacentMerging
from espnet_ofa.upstream.transformer import Transformer

DIM = 4
WAYS = [{"ratio": 0.3}, {"ratio": 0.8}, {"threshold": 0.2}, {"threshold": -1.0}]
RULES = st.sampled_from(WAYS) | st.builds(dict, ratio=st.floats(0.01, 0.99))
LENGTHS = torch.tensor([13, 5, 1])


def batch(lengths, seed=0):
    """Units, keys and durations; what lies on padding must not matter."""
    random = torch.Generator().manual_seed(seed)
    shape = (len(lengths), int(lengths.max()))
    units, keys = (torch.randn(*shape, DIM, generator=random) for _ in range(2))
    durations = torch.randint(1, 5, shape, generator=random).float()
    padding = ~valid_mask(lengths, shape[1])
    units[padding], durations[padding] = 1e6, 0.0
    return units, keys, durations


def by_hand(units, keys, durations, ratio=None, threshold=None):
    """One utterance: lists of (U, D) units and (U,) durations after merging."""
    n = len(units)
    cosines = [
        float(F.cosine_similarity(keys[i], keys[i + 1], 0)) for i in range(n - 1)
    ]
    if ratio is not None:
        best = sorted(range(n - 1), key=lambda i: -cosines[i])
        joined = set(best[: min(int(ratio * n), n - 1)])
    else:
        joined = {i for i in range(n - 1) if cosines[i] > threshold}
    groups = [[0]]
    for i in range(1, n):
        if i - 1 in joined:
            groups[-1].append(i)
        else:
            groups.append([i])
    spans = [durations[g].sum() for g in groups]
    means = [
        (durations[g, None] * units[g]).sum(0) / span
        for g, span in zip(groups, spans, strict=True)
    ]
    return torch.stack(means), torch.stack(spans)


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    rule=RULES,
    seed=st.integers(0, 999),
)
def test_a_merge_equals_the_loop_whatever_the_padding(sizes, rule, seed):
    lengths = torch.tensor(sizes)
    units, keys, durations = batch(lengths, seed)
    merge = AdjacentMerging(**rule)(keys, lengths, durations)
    averages = merge.average(units)
    torch.testing.assert_close(merge.durations.sum(1), durations.sum(1))
    assert (
        averages.shape[1] == int(merge.lengths.max()) and int(merge.lengths.min()) > 0
    )
    for row, n in enumerate(sizes):
        wanted, spans = by_hand(
            units[row, :n], keys[row, :n], durations[row, :n], **rule
        )
        u = int(merge.lengths[row])
        assert u == len(wanted)
        torch.testing.assert_close(averages[row, :u], wanted, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(merge.durations[row, :u], spans)
        assert (merge.durations[row, u:] == 0).all()


def test_untrimmed_is_the_same_but_for_padding():
    units, keys, durations = batch(LENGTHS)
    merging = AdjacentMerging(threshold=0.0)
    cut = merging(keys, LENGTHS, durations)
    whole = merging(keys, LENGTHS, durations, trim=False)
    size = cut.durations.shape[1]
    assert whole.durations.shape == durations.shape and size < durations.shape[1]
    assert torch.equal(whole.lengths, cut.lengths)
    assert torch.equal(whole.durations[:, :size], cut.durations)
    torch.testing.assert_close(whole.average(units)[0, :size], cut.average(units)[0])


def model(**conf):
    torch.manual_seed(0)
    return Transformer(DIM, 3, 2, 8, 3, 1, dropout=0.0, merge=conf).eval()


@pytest.mark.parametrize("rule", WAYS[:3])
def test_states_of_all_layers_share_units(rule):
    transformer = model(layers=[0, 2], **rule)
    units, _, durations = batch(LENGTHS)
    units = units.clamp(-3, 3)
    out = transformer(units, LENGTHS, durations)
    torch.testing.assert_close(out.durations.sum(1), durations.sum(1))
    top = out.states[-1]
    assert top.shape[1] < out.states[1].shape[1] < out.states[0].shape[1]
    aligned = out.aligned()
    assert aligned[-1] is top and {x.shape for x in aligned} == {top.shape}
    # An average weighted by duration keeps the sum over time.
    torch.testing.assert_close(
        (out.states[0] * durations[..., None]).sum(1),
        (aligned[0] * out.durations[..., None]).sum(1),
        atol=1e-4,
        rtol=1e-4,
    )


def test_every_parameter_learns_through_merges():
    transformer = model(layers=[0, 1], ratio=0.4)
    units, _, durations = batch(LENGTHS)
    out = transformer(units.clamp(-3, 3), LENGTHS, durations)
    (out.states[-1] ** 3).sum().backward()
    missing = [n for n, p in transformer.named_parameters() if p.grad is None]
    assert missing == []


def test_a_prefix_of_layers_merges_only_there():
    transformer = model(layers=[1], ratio=0.5)
    units, _, durations = batch(LENGTHS)
    out = transformer(units.clamp(-3, 3), LENGTHS, durations, num_layers=1)
    assert not out.merges and torch.equal(out.durations, durations)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"layers": [0]}, "one of ratio and threshold"),
        ({"layers": [0], "ratio": 0.5, "threshold": 0.5}, "one of ratio and threshold"),
        ({"layers": [0], "ratio": 1.0}, "ratio must lie"),
        ({"layers": [0], "threshold": 1.5}, "threshold must lie"),
        ({"layers": [3], "ratio": 0.5}, "must be among 0 to 2"),
        ({"ratio": 0.5}, "names no layers"),
    ],
)
def test_bad_options_are_named(conf, message):
    with pytest.raises(ValueError, match=message):
        model(**conf)
