"""Weights of a model on their way into a package: read, checked, saved again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from espnet_ofa.plugin import register
from espnet_ofa.upstream.checkpoint import check_fit
from espnet_ofa.upstream.importers.source import read_weights
from espnet_ofa.zoo.card import LearnedLam
from espnet_ofa.zoo.kinds import Kind
from espnet_ofa.zoo.pull import packed_options


def read_trained(path: Path) -> dict[str, Tensor]:
    """A trained model's weights and nothing else.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, or one that holds optimizer states.
    """
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.pth"))
        raise FileNotFoundError(f"{path}: no such checkpoint; there are {there}")
    try:
        return read_weights(path)
    except ValueError as e:
        raise ValueError(
            f"{e}. Give one such as valid.loss.ave.pth; checkpoint.pth is for resuming"
        ) from e


def load_packed(
    folder: Path, kind: Kind, state: dict[str, Tensor], source: Path
) -> nn.Module:
    """The packed model as ESPnet loads it; every key must fit.

    Args:
        folder: of the package.
        kind: of model.
        state: weights in its checkpoint.
        source: the checkpoint that was packed, for messages: the folder may be a draft.

    Raises:
        ValueError: missing, unexpected or misshapen keys, by name.
    """
    register()
    task = kind.load_task()
    with packed_options(folder, kind) as options:
        path = options[kind.model]
        try:
            model, args = task.build_model_from_file(options[kind.config], path)
        except (RuntimeError, ValueError) as e:
            found = str(e).replace(path, str(source))
            if isinstance(e, RuntimeError):  # ESPnet's, of another shape
                if "loading state_dict" not in found:
                    raise
                found = f"{source} does not fit: {' '.join(found.split())[:500]}"
            raise ValueError(
                f"{source.with_name('config.yaml')} does not build a model that loads: "
                + found
            ) from e
    if not getattr(args, "use_adapter", False):
        check_fit(model, state, str(source))
    return model


def settle_lams(model: nn.Module, config: dict[str, Any]) -> list[LearnedLam]:
    """Write learned lambdas into the config, as the value lambda starts from."""
    from espnet_ofa.asr.adapter import Adapter

    found = []
    for module in model.modules():
        if isinstance(module, Adapter) and module.policy.learnable is not None:
            lam = module.policy.learnable
            value = min(max(lam.value().item(), lam.low), lam.high)
            found.append(LearnedLam(module.role, value, lam.init, lam.alone))
            conf = config[f"{module.role}_conf"]
            conf["lam_conf"] = {**(conf.get("lam_conf") or {}), "init": value}
    return found


def uses_lam(model: nn.Module) -> bool:
    """Whether any part of the model compresses by lambda."""
    from espnet_ofa.asr.adapter import Adapter

    parts = (module for module in model.modules() if isinstance(module, Adapter))
    return any(part.policy.used for part in parts)


def save_safely(state: dict[str, Tensor], path: Path) -> None:
    """Save as safetensors."""
    # Cloned: safetensors refuses tensors that share memory, such as tied embeddings.
    weights = {
        k: v.clone(memory_format=torch.contiguous_format) for k, v in state.items()
    }
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes it the owner's alone
