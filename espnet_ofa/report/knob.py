"""Turning lambda or squeeze of a loaded model, and back to its own."""

from __future__ import annotations

import argparse

import torch
from torch import nn

from espnet_ofa.subsampling.choice import (
    parse_squeeze,
    set_squeeze,
    squeeze_policies,
)
from espnet_ofa.subsampling.policy import fix_lam, lam_policies

OWN = "own"


def squeeze_value(text: str) -> str:
    """``S,q,k`` of a command line written out, or ``own``."""
    try:
        return text if text == OWN else ",".join(map(str, parse_squeeze(str(text))))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"`{OWN}` or: {error}") from error


class LamKnob:
    """The lambda of a model, whose own is remembered.

    Args:
        model: with any number of places where lambda is chosen.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.policies = lam_policies(model)
        self._own = [policy.fixed for policy in self.policies]

    def use(self, lam: float | str) -> tuple[float | None, float | None]:
        """Run at ``lam`` from now on; its value and, if learned, where it began."""
        if lam != OWN:
            fix_lam(self.model, float(lam))
            return float(lam), None
        for policy, own in zip(self.policies, self._own, strict=True):
            policy.set(own)
        if not self.policies:
            return None, None
        policy = self.policies[0]
        with torch.no_grad():
            value = float(policy())
        learned = policy.learnable if policy.fixed is None else None
        return value, None if learned is None else learned.init


class SqueezeKnob:
    """The squeeze of a stochastic model, whose own is remembered.

    Args:
        model: with any number of places where a squeeze is chosen.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.policies = squeeze_policies(model)
        self._own = [policy.fixed for policy in self.policies]

    def use(self, squeeze: str) -> str | None:
        """Run at ``"S,q,k"`` from now on; what that is, None without a choice.

        Raises:
            ValueError: nothing there has a choice, or it is not among the choices.
        """
        if squeeze != OWN:
            set_squeeze(self.model, squeeze)
        else:
            for policy, own in zip(self.policies, self._own, strict=True):
                policy.set(own)
        if not self.policies:
            return None
        return ",".join(map(str, self.policies[0]()))
