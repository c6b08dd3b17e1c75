"""The sandwich rule: each batch at 20 ms, at a drawn lambda and at lambda 1."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from espnet_ofa.asr.adapter import Adapter, Step
from espnet_ofa.asr.frontend import OFAFrontend
from espnet_ofa.subsampling.lengths import valid_mask


def sandwich(adapter: Adapter, step: Step) -> tuple[Tensor, dict[str, Any], Tensor]:
    """Run a step of the model; in training, at three lambdas where that is asked for.

    Each pass has the task's loss, and those of lambda 1 and of the drawn lambda are
    pulled to lambda 0: their features, spread over frames of 20 ms, to its features,
    which have no gradient. Features and not what CTC says: its spikes are single frames
    at 20 ms and whole units at 90, so frame by frame its posteriors would teach long
    units to be blank. The frame that a long unit has to be closest to is the mean of
    those that it covers, for which features have a meaning and posteriors have not.

    Statistics are those of the drawn lambda, but ``loss_20ms`` (lambda 0) and
    ``missed`` (see :func:`missed_variance`, mean of both pulls).

    Args:
        adapter: whose lambda it is.
        step: the model's forward.

    Reference: Yu and Huang, "Universally slimmable networks and improved training
    techniques", ICCV 2019.
    """
    if not (isinstance(adapter, OFAFrontend) and adapter.sandwich):
        return step()
    if not adapter.in_training:
        return step()
    with adapter.policy.at(0.0):
        loss, stats, _ = step()
    at_20ms = loss.detach()
    goal, lengths = adapter.spread_frames()
    goal = goal.detach()
    with adapter.policy.at(1.0):
        longest, _, _ = step()
    missed = missed_variance(adapter.spread_frames()[0], goal, lengths)
    drawn, stats, weight = step()
    missed = missed + missed_variance(adapter.spread_frames()[0], goal, lengths)
    missed = missed / 2
    # The mean, so that guidance and grad_clip weigh what they do without a sandwich.
    loss = (loss + longest + drawn) / 3 + adapter.sandwich * missed
    extra = {"loss_20ms": at_20ms, "missed": missed.detach().expand_as(at_20ms)}
    return loss, {**stats, **extra}, weight


def missed_variance(frames: Tensor, goal: Tensor, lengths: Tensor) -> Tensor:
    """Share of the variance of ``goal`` that ``frames`` miss, 0-d.

    Args:
        frames: (B, S, D).
        goal: (B, S, D).
        lengths: (B,) frames that are not padding.
    """
    mask = valid_mask(lengths, goal.shape[1])[..., None]
    frames, goal = frames.float() * mask, goal.float() * mask
    mean = goal.sum((0, 1)) / lengths.sum()
    variance = ((goal - mean) * mask).square().sum()
    return (frames - goal).square().sum() / variance.clamp(min=1e-12)
