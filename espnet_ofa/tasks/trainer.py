"""ESPnet's trainer, but a loss that is not finite stops it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from espnet2.train.reporter import SubReporter
from espnet2.train.trainer import Trainer, TrainerOptions
from torch import Tensor, nn

_NAMED = 5  # tensors that an error lists
OVERFLOW = (
    "Samples and weights are finite, so the model overflows on these: look at them "
    "(silence, clipping, length), lower the learning rate, or go without use_amp"
)


class NonFiniteLossError(RuntimeError):
    """Raised when a loss is NaN or infinite."""


class FiniteTrainer(Trainer):
    """Stops at the first loss that is NaN or infinite, and says whose.

    ESPnet's own skips the update where a gradient is not finite, goes on, and in the
    end saves and averages whatever it has. Here checkpoints are those of epochs whose
    losses, also at validation, were all finite. A gradient alone stops nothing: under
    fp16 it may overflow at any time, and the scaler answers by halving the scale.

    The trainer reads every statistic on the host before it goes backward, so that the
    check is for nothing. DeepSpeed has a trainer of its own, without the check.
    """

    @classmethod
    def train_one_epoch(
        cls,
        model: nn.Module,
        reporter: SubReporter,
        options: TrainerOptions,
        **kwargs: Any,
    ) -> bool:
        """As ESPnet's.

        Raises:
            NonFiniteLossError: a loss is not finite.
        """
        with _watched(model, "training", reporter.get_epoch(), options.output_dir):
            return super().train_one_epoch(
                model=model, reporter=reporter, options=options, **kwargs
            )

    @classmethod
    def validate_one_epoch(
        cls,
        model: nn.Module,
        reporter: SubReporter,
        options: TrainerOptions,
        **kwargs: Any,
    ) -> None:
        """As ESPnet's.

        Raises:
            NonFiniteLossError: a loss is not finite.
        """
        with _watched(model, "validation", reporter.get_epoch(), options.output_dir):
            super().validate_one_epoch(
                model=model, reporter=reporter, options=options, **kwargs
            )


@contextmanager
def _watched(
    model: nn.Module, phase: str, epoch: int, folder: str | Path
) -> Iterator[None]:
    """Within, look at each loss that the model returns."""
    step = 0
    batch: dict[str, Any] | None = None  # while the model is at it

    def before(model: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        nonlocal step, batch
        step, batch = step + 1, inputs

    def after(model: nn.Module, args: Any, inputs: Any, result: Any) -> None:
        nonlocal batch
        loss, stats, _ = result
        if not torch.isfinite(loss).all():
            cause = _cause(model, inputs) or OVERFLOW
            raise stop(inputs, f"not finite ({_parts(loss, stats)})", cause)
        batch = None

    def stop(inputs: dict[str, Any], what: str, cause: str) -> NonFiniteLossError:
        utterances = ", ".join(inputs.get("utt_id", ["unknown"]))
        return NonFiniteLossError(
            f"step {step} of {phase} in epoch {epoch}: the loss is {what}. Utterances "
            f"of the batch: {utterances}. {cause}. {_kept(Path(folder), epoch)}"
        )

    handles = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    except (RuntimeError, ValueError) as error:
        # The compressor counts units, so that it refuses weights that are NaN itself.
        if batch is None or isinstance(error, NonFiniteLossError):
            raise
        cause = _cause(model, batch)
        if cause is None:
            raise
        raise stop(batch, f"not even computed ({error})", cause) from error
    finally:
        for handle in handles:
            handle.remove()


def _parts(loss: Tensor, stats: dict[str, Any]) -> str:
    """The loss and what it is made of."""
    parts = {k: v for k, v in stats.items() if k.startswith("loss_") and v is not None}
    return ", ".join(
        f"{name} {float(torch.as_tensor(value).detach().float().mean()):.4g}"
        for name, value in {"loss": loss, **parts}.items()
    )


def _cause(model: nn.Module, batch: dict[str, Any]) -> str | None:
    """What is not finite before the model computes, and what to do; None: nothing."""
    names = [n for n, x in model.named_parameters() if not torch.isfinite(x).all()]
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return (
            f"Weights that are not finite: {', '.join(names[:_NAMED])}{more}. So the "
            "data may be innocent: lower the learning rate or grad_clip, or go without "
            "use_amp"
        )
    bad = {
        utterance
        for x in batch.values()
        if isinstance(x, Tensor) and x.is_floating_point()
        for utterance, row in zip(batch.get("utt_id", []), x, strict=False)
        if not torch.isfinite(row).all()
    }
    if bad:
        return (
            f"Samples that are not finite: {', '.join(sorted(bad))}. Repair or remove "
            "their audio"
        )
    return None


def _kept(folder: Path, epoch: int) -> str:
    """What can be gone on from."""
    if epoch > 1 and (folder / "latest.pth").exists():
        return (
            f"Kept: {folder / 'latest.pth'}, of epoch {epoch - 1}; the same command "
            "with --resume true goes on from there"
        )
    return "No epoch was finished, so there is no checkpoint"
