"""What a learned lambda learns from: the loss at two lambdas, not its derivative."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from espnet_ofa.asr.adapter import Adapter, Step
from espnet_ofa.asr.building import building_args, loading_checkpoint


@contextmanager
def _same_draws(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Within, random numbers are those of what comes after, and norms count nothing.

    So masks of time are the same, and so is dropout up to the compressor; behind it
    the number of units differs. Else their noise would be part of the slope.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    counted = [buffer for norm in norms for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in counted]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for buffer, value in zip(counted, before, strict=True):
            buffer.copy_(value)


def learn_lam(
    model: nn.Module, adapter: Adapter, step: Step
) -> tuple[Tensor, dict[str, Any], Tensor]:
    """Run a step of the model; in training, lambda gets its gradient from two.

    The weights learn at one lambda of the pair, the other costs a forward, with the
    same masks of time and the same seed of dropout. Pairs are drawn about the learned
    lambda, which is what ``lam`` in the statistics is; ``lam_slope`` is this step's
    estimate, price included. Averaged over steps it tells an optimum (about zero) from
    a bound.

    Args:
        model: the whole of it.
        adapter: whose lambda it is.
        step: the model's forward.

    Raises:
        ValueError: lambda is to learn alone, and is frozen.
    """
    policy = adapter.policy
    learned = policy.learnable
    if learned is None or not adapter.in_training:
        return step()
    if not learned.raw.requires_grad:
        if adapter.alone:
            raise ValueError(
                "nothing learns: lam_conf: {alone: true} freezes all but lambda, and "
                "lambda is frozen, too (--freeze_param?)"
            )
        return step()
    here, there = pair = learned.pair(policy.draw())
    same_draws = _same_draws(model, learned.raw.device)
    with policy.at(there), adapter.second_look(), same_draws:
        other = step()[0]
    with policy.at(here):
        loss, stats, weight = step()
    pull, slope = learned.follow(pair, loss - other)
    stats["lam"] = learned.value().detach()
    stats["lam_slope"] = slope
    return loss + pull, stats, weight


def freeze_others(model: nn.Module, adapter: Adapter) -> None:
    """With ``lam_conf: {alone: true}``, let nothing but lambda learn.

    Weights that have fitted their training data have the same loss there at most
    lambdas. Data that they have not seen say more about lambda, and stay so only if
    the weights do not learn from them.

    Raises:
        ValueError: there is nothing to choose lambda for, since the weights would be
            random, or others are going to learn.
    """
    if not adapter.alone:
        return
    args = None if loading_checkpoint() else building_args()
    if args is not None and not getattr(args, "init_param", None):
        raise ValueError(
            f"{adapter.role}_conf: lam_conf: {{alone: true}} chooses lambda for a "
            "finished model, and this one is random: give it, --init_param FILE"
        )
    if getattr(args, "use_adapter", False):
        raise ValueError(
            f"{adapter.role}_conf: lam_conf: {{alone: true}} leaves nothing for "
            "ESPnet's use_adapter to train: remove one of them"
        )
    model.requires_grad_(False)
    adapter.policy.requires_grad_(True)


def evaluate_others(model: nn.Module, adapter: Adapter) -> None:
    """With ``alone`` and in train mode, put all but lambda into eval mode."""
    if adapter.alone and model.training:
        model.eval()
        adapter.training = True
        adapter.policy.train()
