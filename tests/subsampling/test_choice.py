"""Squeeze settings: drawn in training, chosen at evaluation, an error when unset."""

import copy
from collections import Counter

import pytest
import torch

from espnet_ofa.subsampling import (
    Squeeze,
    SqueezePolicy,
    SqueezeUnsetError,
    set_squeeze,
)
from espnet_ofa.subsampling.choice import parse_squeeze

CHOICES = ([1, 2, 4], [1, 2], [1, 3])


def batches(policy, number):
    settings = []
    for _ in range(number):
        policy.draw()
        assert policy() == policy()  # one setting a batch
        settings.append(policy())
    return settings


def test_draws_depend_on_seed_and_step_only():
    first, second, other = (SqueezePolicy(*CHOICES) for _ in range(3))
    other.choose(None, "uniform", seed=1)
    torch.manual_seed(1)
    drawn = batches(first, 30)
    torch.manual_seed(2)
    assert drawn == batches(second, 30) != batches(other, 30)


def test_draws_are_uniform_and_independent():
    counts = Counter(batches(SqueezePolicy(*CHOICES), 2400))
    assert len(counts) == 12
    assert min(counts.values()) > 140 and max(counts.values()) < 260


def test_draws_go_on_where_a_checkpoint_left_them():
    policy = SqueezePolicy(*CHOICES)
    drawn = batches(policy, 20)
    resumed = SqueezePolicy(*CHOICES)
    resumed.load_state_dict(policy.state_dict())
    assert batches(resumed, 20) == batches(policy, 20) != drawn


def test_unset_at_evaluation_is_an_error_and_never_a_draw():
    policy = SqueezePolicy(*CHOICES)
    with torch.no_grad(), pytest.raises(SqueezeUnsetError):  # collect_stats
        policy()
    with pytest.raises(SqueezeUnsetError, match=r"S in \[1, 2, 4\].*set_squeeze"):
        policy.eval()()
    set_squeeze(torch.nn.Sequential(policy), "2,1,3")
    assert policy() == Squeeze(2, 1, 3)
    assert len(set(batches(policy.train(), 20))) > 1  # training draws on


def test_fine_tuning_to_one_setting_draws_nothing():
    policy = SqueezePolicy(*CHOICES)
    policy.choose([4, 2], None)
    assert set(batches(policy, 5)) == {Squeeze(4, 2, 1)}
    assert policy.draws == 0


def test_a_copy_chooses_for_itself():
    policy = SqueezePolicy(*CHOICES).eval()
    policy.set(2)
    twin = copy.deepcopy(policy)
    twin.set(4)
    assert (policy.factor(), twin.factor()) == (2, 4)


@pytest.mark.parametrize("value", ["2,1,3", [2, 1, 3], (2, 1, 3), "2, 1, 3"])
def test_forms_of_a_setting(value):
    assert parse_squeeze(value) == (2, 1, 3)
    assert parse_squeeze("2") == parse_squeeze(2) == (2, 1, 1)


@pytest.mark.parametrize("value", ["", "2,x", "2,0", [1, 1, 1, 1], [2.5], []])
def test_malformed_settings_are_named(value):
    with pytest.raises(ValueError, match="squeeze must be S,q,k"):
        parse_squeeze(value)


def test_unknown_settings_and_words_are_named():
    policy = SqueezePolicy(*CHOICES)
    with pytest.raises(ValueError, match=r"made for k in \[1, 3\], not 2"):
        policy.set((2, 1, 2))
    with pytest.raises(ValueError, match="squeeze_train must be `uniform`"):
        policy.choose(2, "unifrom")
    with pytest.raises(ValueError, match="no squeeze to choose"):
        set_squeeze(torch.nn.Linear(2, 2), 2)
