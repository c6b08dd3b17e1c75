"""Which lambda a module that compresses uses now.

A module that compresses owns one :class:`LamPolicy`, which answers that question, so
that a random draw can never reach inference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from espnet_ofa.subsampling.rate import (
    DEFAULT_MEAN_ALPHA,
    Lam,
    LamSampler,
    LamTrain,
    LearnableLam,
    check_lam,
)
from espnet_ofa.subsampling.training import in_training_step


class LamUnsetError(RuntimeError):
    """Raised when a model is evaluated although nobody chose a lambda."""


class LamPolicy(nn.Module):
    """Which lambda a compressing module uses now.

    Two keys, as in every config: ``lam`` is the value at evaluation, ``lam_train`` the
    sampler. A draw happens only :func:`in_training_step`.

    Args:
        lam: number; ``"adaptive"`` for a learnable lambda (then used in training too);
            None leaves evaluation undecided, which is an error when it comes to it.
        lam_train: see :class:`LamSampler`; None trains at ``lam``.
        lam_conf: arguments of :class:`LearnableLam`, for ``lam: adaptive`` only.
        seed: seed of the draws.
        mean_alpha: rate that draws of the period assume at lambda 1.
    """

    def __init__(
        self,
        lam: float | str | None = None,
        lam_train: LamTrain = None,
        lam_conf: dict | None = None,
        seed: int = 0,
        mean_alpha: float = DEFAULT_MEAN_ALPHA,
    ) -> None:
        super().__init__()
        self.learnable: LearnableLam | None = None
        self.fixed: Lam | None = None
        self.used = True  # False: beside a compressor of a fixed rate
        self._forced: Lam | None = None
        if isinstance(lam, str):
            if lam != "adaptive":
                raise ValueError(f"lam must be a number or 'adaptive'; got {lam!r}")
            if lam_train is not None:
                raise ValueError(
                    "lam: adaptive learns its own value; remove lam_train "
                    f"(found {lam_train!r})"
                )
            self.learnable = LearnableLam(**(lam_conf or {}))
            lam_train = "uniform"  # where in its window it is looked at
        elif lam_conf:
            raise ValueError("lam_conf goes with lam: adaptive only")
        elif lam is not None:
            self.fixed = check_lam(lam)
        self.sampler = (
            None if lam_train is None else LamSampler(lam_train, seed, mean_alpha)
        )
        # Draws so far, so that training that resumes goes on where it stopped; so does
        # training from another's weights, on draws that those have not seen. A float,
        # since ESPnet's checkpoint averaging adds up integers; there with and without a
        # sampler, since models are initialised from each other.
        self.register_buffer("draws", torch.zeros(1))

    def set(self, lam: Lam | None) -> None:
        """Override the value at evaluation; None goes back to the learned value."""
        self.fixed = lam if lam is None or isinstance(lam, Tensor) else check_lam(lam)

    @contextmanager
    def at(self, lam: Lam) -> Iterator[None]:
        """Within, this lambda and no other, in training too; nothing is drawn."""
        before, self._forced = self._forced, lam
        try:
            yield
        finally:
            self._forced = before

    def forward(self) -> Lam:
        """Lambda for this call: a float, or a tensor that may carry gradient."""
        if self._forced is not None:
            return self._forced
        if in_training_step(self):
            if self.learnable is not None:
                return self.learnable.value()
            if self.sampler is not None:
                return self.draw()
        if self.fixed is not None:
            return self.fixed
        if self.learnable is not None:
            return self.learnable.value()
        raise LamUnsetError(
            "lambda is not set: give `lam: 0.5` in the config, call "
            "espnet_ofa.set_lam(model, 0.5), or pass --lam when decoding"
        )

    def draw(self) -> float:
        """The sampler's next number, counted in what is saved."""
        assert self.sampler is not None
        drawn = self.sampler()
        self.draws.fill_(self.sampler.step)  # type: ignore[operator]
        return drawn

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.sampler is not None:
            self.sampler.step = int(self.draws.item())  # type: ignore[operator]


def lam_policies(model: nn.Module) -> list[LamPolicy]:
    """What chooses lambda in ``model``, where a compressor listens to it."""
    return [m for m in model.modules() if isinstance(m, LamPolicy) and m.used]


def fix_lam(model: nn.Module, lam: Lam) -> None:
    """What :func:`espnet_ofa.set_lam` does with numbers and tensors.

    Args:
        model: any module, e.g. ``speech2text.asr_model``.
        lam: a number in [0, 2], or a 0-d or (B,) tensor.

    Raises:
        ValueError: nothing there compresses by lambda, or ``lam`` is out of range.
    """
    policies = lam_policies(model)
    if not policies:
        raise ValueError(
            f"{type(model).__name__} has no part that compresses by lambda: expected a "
            "frontend, preencoder or encoder named `ofa` (or an OFAUpstream) with "
            "compressor: cif"
        )
    for policy in policies:
        policy.set(lam)
