"""What a learned lambda learns from: the loss at two lambdas, not its derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from espnet_ofa.asr.adapter import Adapter

Step = Callable[[], tuple[Tensor, dict[str, Any], Tensor]]  # loss, statistics, weight


def learn_lam(adapter: Adapter, step: Step) -> tuple[Tensor, dict[str, Any], Tensor]:
    """Run a step of the model; in training, lambda gets its gradient from two.

    The weights learn at one lambda of the pair, the other costs a forward. Pairs are
    drawn about the learned lambda, which is what ``lam`` in the statistics is;
    ``lam_slope`` is this step's estimate, price included. Averaged over steps it tells
    an optimum (about zero) from a bound.

    Args:
        adapter: whose lambda it is.
        step: the model's forward.
    """
    policy = adapter.policy
    learned = policy.learnable
    if learned is None or not learned.raw.requires_grad or not adapter.in_training:
        return step()
    here, there = pair = learned.pair(policy.draw())
    with policy.at(there), adapter.second_look():
        other = step()[0]
    with policy.at(here):
        loss, stats, weight = step()
    pull, slope = learned.follow(pair, loss - other)
    stats["lam"] = learned.value().detach()
    stats["lam_slope"] = slope
    return loss + pull, stats, weight


def freeze_others(model: nn.Module, adapter: Adapter) -> None:
    """Of ``lam_conf: {alone: true}``: let nothing but lambda learn.

    Lambda trades compression for score, so it is to be judged where the weights have
    not learned: a model that has fitted its training data has the same loss there at
    most lambdas. Such data stay unseen if the weights keep their values.
    """
    if adapter.alone:
        model.requires_grad_(False)
        adapter.policy.requires_grad_(True)


def evaluate_others(model: nn.Module, adapter: Adapter) -> None:
    """The same in train mode: all but lambda compute as at evaluation."""
    if adapter.alone and model.training:
        model.eval()
        adapter.training = True
        adapter.policy.train()
