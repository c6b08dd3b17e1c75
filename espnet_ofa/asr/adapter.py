"""What the ESPnet frontend, preencoder and encoder named ofa have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from torch import Tensor, nn

from espnet_ofa.asr.building import (
    building_args,
    loading_checkpoint,
    refuse_checkpoint,
)
from espnet_ofa.asr.guard import cap_lam
from espnet_ofa.asr.init_keeper import InitKeeper
from espnet_ofa.asr.package import check_package
from espnet_ofa.subsampling import (
    Compressor,
    CompressorOutput,
    LamPolicy,
)
from espnet_ofa.subsampling.compressor import CIFCompressor
from espnet_ofa.subsampling.guidance import cardinality_loss
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.subsampling.training import in_training_step

Step = Callable[[], tuple[Tensor, dict[str, Any], Tensor]]  # loss, statistics, weight


class Adapter(nn.Module):
    """Base of the adapters: lambda, what was measured, and what the loss may use.

    An adapter can neither add a loss nor see the text. ``model: ofa`` *claims* its
    adapters, hands them the units that the labels need, and collects
    :meth:`aux_losses` and :meth:`stats` after each forward. Under the stock model
    lambda works in full, but asking for a price, guidance or the guard is an error.

    Subclasses call :meth:`_setup` at the end of their constructor.
    """

    role: str
    frame_ms: float
    policy: LamPolicy
    sandwich: float = 0.0  # of the frontend only

    def _setup(
        self,
        compressor: Compressor,
        lam_price: float,
        guidance: float,
        ctc_guard: bool,
        keep: list[nn.Module],
    ) -> None:
        wanted = [
            name
            for name, value in (
                ("lam_price", lam_price),
                ("guidance", guidance),
                ("ctc_guard", ctc_guard),
                ("sandwich", self.sandwich),
                ("lam_conf.alone", self.alone),
            )
            if value
        ]
        check_package()
        policy = self.policy
        policy.used = compressor.uses_lam
        training = building_args() is not None and not loading_checkpoint()
        if not isinstance(compressor, CIFCompressor):
            lams = {
                "lam": policy.fixed,
                "lam: adaptive": policy.learnable,
                "lam_train": not policy.learnable and policy.sampler,
            }
            wanted += [name for name, value in lams.items() if value]
            if wanted:
                raise ValueError(
                    f"{self.role}: ofa: {', '.join(wanted)} needs compressor: cif; "
                    f"{type(compressor).__name__} has no lambda"
                )
        elif training and policy.fixed is None and policy.learnable is None:
            raise ValueError(
                f"{self.role}_conf: set lam: the value at evaluation. Without it, "
                "training would stop at the first validation"
            )
        elif lam_price and not compressor.rate_gradient and not policy.learnable:
            raise ValueError(
                f"{self.role}: ofa: lam_price has nothing to act on: lambda is not "
                "learned and alpha keeps its rate. Set lam: adaptive (or "
                "compressor_conf: {rate_gradient: true})"
            )
        elif self.sandwich and (policy.learnable or policy.sampler is None):
            raise ValueError(
                f"{self.role}: ofa: sandwich goes with a lambda that is drawn: set lam "
                "and lam_train"
            )
        if guidance:
            compressor.anchored = False
        self.lam_price = lam_price
        self.guidance = guidance
        self.ctc_guard = ctc_guard
        self._wanted = wanted
        self._claimed = False
        self._looking_again = False
        self._needed: Tensor | None = None
        self._graph: tuple[Tensor, Tensor, Tensor] | None = None
        self._durations: Tensor | None = None
        self._target_rate = (
            compressor.predictor.target_rate
            if isinstance(compressor, CIFCompressor)
            else 0.0
        )
        self._stats: dict[str, Tensor] = {}
        self.init_keeper = InitKeeper(*keep)  # must stay the last child

    def claim(self) -> None:
        """Called by the model that will collect this adapter's losses."""
        self._claimed = True

    def guard_ctc(self) -> None:
        """Called by a model that trains with CTC, which may need the guard."""
        # An utterance that is infeasible has zero loss, and lambda would seek that.
        if self.policy.learnable is not None:
            self.ctc_guard = True

    def begin(self, needed: Tensor) -> None:
        """Start a batch: (B,) units that the labels of each utterance need."""
        self._needed = needed
        self._graph = None

    @property
    def alone(self) -> bool:
        """True where nothing but lambda learns."""
        return self.policy.learnable is not None and self.policy.learnable.alone

    @property
    def in_training(self) -> bool:
        """True in a training step, and in its second look."""
        return in_training_step(self) or (self.training and self._looking_again)

    @contextmanager
    def second_look(self) -> Iterator[None]:
        """Within, a step is of training, but nothing learns from it or counts it."""
        self._looking_again = True
        try:
            with torch.no_grad():
                yield
        finally:
            self._looking_again = False

    def _compress(
        self,
        compressor: Compressor,
        frames: Tensor,
        lengths: Tensor,
        input_lengths: Tensor,
    ) -> CompressorOutput:
        """Compress at the policy's lambda and take note of what happened.

        Args:
            compressor: the one to run.
            frames: (B, S, D).
            lengths: (B,) frames that are not padding.
            input_lengths: (B,) the adapter's input, in frames of ``frame_ms``.
        """
        self.init_keeper.release()
        learning = self.in_training
        if learning and self._wanted and not self._claimed:
            raise RuntimeError(
                f"{self.role}_conf asks for {', '.join(self._wanted)}, which the stock "
                "ESPnet model cannot provide: set `model: ofa`"
            )
        if not isinstance(compressor, CIFCompressor):
            out = compressor(frames, lengths)
            self._durations = out.durations
            self._stats = {"period_ms": self._period(input_lengths, out.lengths)}
            return out
        lam = self.policy()
        if isinstance(lam, Tensor):
            lam = lam.to(frames.device)
            stats = {"lam": lam.detach().float().mean()}
        else:
            stats = {"lam": lengths.new_full((), lam, dtype=torch.float32)}
        needed = self._needed if learning and self.ctc_guard else None

        def guarded(alpha: Tensor, lengths: Tensor) -> Tensor:
            assert needed is not None
            capped = cap_lam(lam, alpha, lengths, needed * compressor.threshold)
            stats["lam"] = capped.detach().mean()
            stats["guarded"] = (capped < lam).float().mean()
            return capped

        out = compressor(frames, lengths, lam if needed is None else guarded)
        self._durations = out.durations
        stats["period_ms"] = self._period(input_lengths, out.lengths)
        self._stats = stats
        collected = self._needed is not None
        if collected and out.alpha is not None and out.weights is not None:
            self._graph = (out.alpha, out.weights, lengths)
        return out

    def _period(self, frames: Tensor, units: Tensor) -> Tensor:
        return self.frame_ms * frames.sum() / units.sum()

    def aux_losses(self) -> dict[str, Tensor]:
        """Weighted losses of the last forward, 0-d each, to be added to the task's.

        ``loss_price`` is ``lam_price`` times the expected share of frames kept as
        units (the mean weight over true frames). ``loss_guidance`` holds raw alpha,
        before lambda, to the predictor's target rate.
        """
        if self._graph is None:
            return {}
        alpha, weights, lengths = self._graph
        losses = {}
        if self.lam_price:
            mask = valid_mask(lengths, weights.shape[1])
            share = (weights * mask).sum() / lengths.sum()
            losses["loss_price"] = self.lam_price * share
        if self.guidance:
            losses["loss_guidance"] = self.guidance * cardinality_loss(
                alpha, lengths, self._target_rate
            )
        return losses

    def stats(self) -> dict[str, Tensor]:
        """Measured in the last forward, 0-d each.

        ``period_ms``: measured frame period, all frames over all units;
        ``lam``: mean lambda; ``guarded``: share of utterances whose lambda the guard
        lowered.
        """
        return dict(self._stats)

    def take_durations(self) -> Tensor:
        """(B, U) frames that each unit of the last forward covers; once per forward.

        Raises:
            RuntimeError: no forward since they were last taken.
        """
        durations, self._durations = self._durations, None
        if durations is None:
            raise RuntimeError(
                f"{self.role}: ofa has not run since its durations were last taken"
            )
        return durations.detach()

    def end(self) -> None:
        """End of a batch: let go of the graph."""
        self._needed = None
        self._graph = None

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        # ESPnet loads with strict=False, so a checkpoint that does not fit would go
        # unnoticed. The model that claims us looks at all keys, ours among them.
        if not self._claimed:
            own = set(self.state_dict(prefix=prefix))
            given = {k for k in state_dict if k.startswith(prefix)}
            refuse_checkpoint(f"{self.role}: ofa", own - given, given - own)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def listen(
    adapter: Adapter, needed: Tensor, step: Step
) -> tuple[Tensor, dict[str, Any], Tensor]:
    """Run a step of a model, with the losses and statistics of its adapter.

    Args:
        adapter: claimed by the model.
        needed: (B,) units that the labels of each utterance need.
        step: the model's forward.

    Returns:
        Loss, statistics, which ESPnet can gather from its replicas, and weight.
    """
    adapter.begin(needed)
    try:
        loss, stats, weight = step()
        extra = adapter.stats()
        for name, value in adapter.aux_losses().items():
            loss = loss + value
            extra[name] = value.detach()
    finally:
        adapter.end()
    stats = {**stats, **extra, "loss": loss.detach()}
    gathered: Any = force_gatherable(stats, loss.device)
    return loss, gathered, weight


def only_adapter(*parts: nn.Module | None) -> Adapter:
    """The one of these parts of a model that is ours.

    Raises:
        ValueError: none or several.
    """
    ours = [part for part in parts if isinstance(part, Adapter)]
    if len(ours) != 1:
        raise ValueError(
            "model: ofa needs one frontend, preencoder or encoder named ofa; found "
            f"{len(ours)}. Use model: espnet where there is none"
        )
    return ours[0]
