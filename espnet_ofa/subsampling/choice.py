"""Squeeze settings: what a stochastic model runs at, as lambda is for CIF.

A stochastic model (Vyas et al., "On-demand compute reduction with stochastic wav2vec
2.0", Interspeech 2022) is trained at settings drawn anew at each step and runs at any
of them. One :class:`SqueezePolicy` answers "which setting now?", so that a draw can
never reach inference.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from operator import index
from typing import NamedTuple

import torch
from torch import nn

from espnet_ofa.subsampling.training import in_training_step

Choices = int | Sequence[int]


class SqueezeUnsetError(RuntimeError):
    """Raised when a stochastic model is evaluated although nobody chose a setting."""


class Squeeze(NamedTuple):
    """One setting (S, q, k).

    Attributes:
        factor: frames in a unit.
        query: units that share one attention query, in every layer.
        key: units that are averaged into one key and value, in every layer.
    """

    factor: int
    query: int = 1
    key: int = 1


def parse_squeeze(value: str | int | Sequence[int]) -> Squeeze:
    """A setting from ``"S,q,k"``, ``"S"``, a number or a sequence of one to three.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, int):
        value = (value,)
    parts = value.split(",") if isinstance(value, str) else value
    try:
        numbers = [int(p) if isinstance(p, str) else index(p) for p in parts]
        if not 1 <= len(numbers) <= 3 or min(numbers) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            "squeeze must be S,q,k: frames in a unit, units per query, units per key, "
            f"all at least 1 (q and k default to 1); got {value!r}"
        ) from None
    return Squeeze(*numbers)


def as_choices(name: str, value: Choices) -> tuple[int, ...]:
    """A number or several as a tuple.

    Raises:
        ValueError: none, or one below 1.
    """
    choices = (value,) if isinstance(value, int) else tuple(value)
    if not choices or min(choices) < 1:
        raise ValueError(f"{name} must be one or several numbers >= 1; got {value}")
    return choices


class SqueezePolicy(nn.Module):
    """Which setting a stochastic upstream uses now.

    In a training step a setting is drawn for each batch, uniformly in
    S, q and k, unless :meth:`choose` says otherwise. As for lambda, a draw depends on
    the seed and the number of draws so far alone: data-parallel workers agree.

    Args:
        factors: S to choose from.
        queries: q to choose from.
        keys: k to choose from.
    """

    def __init__(
        self, factors: Sequence[int], queries: Sequence[int], keys: Sequence[int]
    ) -> None:
        super().__init__()
        self.choices = tuple(tuple(x) for x in (factors, queries, keys))
        self.fixed: Squeeze | None = None
        self.drawing = True
        self.seed = 0
        self.step = 0
        self._drawn: Squeeze | None = None
        self.register_buffer("draws", torch.zeros(1))  # a float: see LamPolicy

    def set(self, squeeze: str | int | Sequence[int] | None) -> None:
        """Choose the setting at evaluation; None leaves it undecided.

        Raises:
            ValueError: a setting that training does not know.
        """
        if squeeze is not None:
            squeeze = parse_squeeze(squeeze)
            for name, value, known in zip("Sqk", squeeze, self.choices, strict=True):
                if value not in known:
                    raise ValueError(
                        f"squeeze {','.join(map(str, squeeze))}: this model was made "
                        f"for {name} in {list(known)}, not {value}"
                    )
        self.fixed = squeeze

    def choose(
        self,
        squeeze: str | int | Sequence[int] | None,
        squeeze_train: str | None,
        seed: int = 0,
    ) -> None:
        """Two keys, as in every config.

        Args:
            squeeze: the setting at evaluation.
            squeeze_train: ``uniform`` draws a setting at each step; None trains at
                ``squeeze``.
            seed: of the draws.

        Raises:
            ValueError: an unknown word or setting.
        """
        if squeeze_train not in (None, "uniform"):
            raise ValueError(
                f"squeeze_train must be `uniform` or nothing; got {squeeze_train!r}"
            )
        self.set(squeeze)
        self.drawing = squeeze_train is not None
        self.seed = seed

    def draw(self) -> None:
        """Begin a batch: a new setting where training draws one."""
        if self._live():
            source = random.Random(f"{self.seed}/squeeze/{self.step}")
            self._drawn = Squeeze(*(source.choice(x) for x in self.choices))
            self.step += 1
            self.draws.fill_(self.step)  # type: ignore[operator]

    def forward(self) -> Squeeze:
        """The setting of this batch.

        Raises:
            SqueezeUnsetError: nobody chose one for evaluation.
        """
        if self._live():
            if self._drawn is None:
                self.draw()
            assert self._drawn is not None
            return self._drawn
        if self.fixed is None:
            factors, queries, keys = map(list, self.choices)
            raise SqueezeUnsetError(
                f"squeeze is not set; it was trained with S in {factors}, q in "
                f"{queries}, k in {keys}: give `squeeze: [S, q, k]` in the config, or "
                "call espnet_ofa.subsampling.set_squeeze(model, (S, q, k))"
            )
        return self.fixed

    def factor(self) -> int:
        """S of this batch."""
        return self().factor

    def _live(self) -> bool:
        return self.drawing and in_training_step(self)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.step = int(self.draws.item())  # type: ignore[operator]


def squeeze_policies(model: nn.Module) -> list[SqueezePolicy]:
    """What chooses squeeze settings in ``model``."""
    return [m for m in model.modules() if isinstance(m, SqueezePolicy)]


def set_squeeze(model: nn.Module, squeeze: str | int | Sequence[int]) -> None:
    """Set the squeeze at evaluation for everything in ``model`` that has a choice.

    Args:
        model: any module, e.g. ``speech2text.asr_model``.
        squeeze: (S, q, k), or the same as ``"S,q,k"``.

    Raises:
        ValueError: nothing there has a choice, or it is not among the choices.
    """
    policies = squeeze_policies(model)
    if not policies:
        raise ValueError(
            f"{type(model).__name__} has no squeeze to choose: expected an upstream "
            "whose squeeze factor, query_pool or key_pool has several values"
        )
    for policy in policies:
        policy.set(squeeze)
