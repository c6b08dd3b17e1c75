"""Saving and loading upstreams: ``config.yaml`` beside ``model.safetensors``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from espnet_ofa.files import write_file
from espnet_ofa.hub import pull
from espnet_ofa.subsampling.policy import LamPolicy
from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.model import OFAUpstream

CONFIG_NAME = "config.yaml"
WEIGHTS_NAME = "model.safetensors"
_NAMED = 10  # keys that an error lists


def save_pretrained(upstream: OFAUpstream, directory: str | Path) -> None:
    """Write an upstream; a reader never sees half of a file."""
    directory = Path(directory)
    state = {k: v.detach().contiguous().cpu() for k, v in upstream_state(upstream)}
    write_file(
        directory / WEIGHTS_NAME,
        lambda draft: save_file(state, draft, metadata={"format": "pt"}),
    )
    write_file(directory / CONFIG_NAME, upstream.config.to_yaml)


def upstream_state(upstream: OFAUpstream) -> list[tuple[str, Tensor]]:
    """The upstream's own tensors: a task's learned lambda is not among them."""
    return [
        (k, v) for k, v in upstream.state_dict().items() if not k.startswith("policy.")
    ]


def load_upstream(upstream: OFAUpstream, state: dict[str, Tensor], source: str) -> None:
    """Load what :func:`upstream_state` gave, strictly; the policy stays as it is."""
    own = dict(upstream_state(upstream))
    policy = {k: v for k, v in upstream.state_dict().items() if k not in own}
    load_strictly(upstream, {**state, **policy}, source)


def load_strictly(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load ``state``, every key of which must fit; see :func:`check_fit`."""
    check_fit(module, state, source)
    module.load_state_dict(state)


def check_fit(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Raise an error that names every key of ``state`` that does not fit.

    Raises:
        ValueError: missing, unexpected or misshapen tensors.
    """
    own = module.state_dict()
    shapes = [
        f"{k}: expected {tuple(own[k].shape)}, found {tuple(state[k].shape)}"
        for k in own.keys() & state.keys()
        if own[k].shape != state[k].shape
    ]
    missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
    refuse_misfit(source, type(module).__name__, missing, unexpected, shapes)


def refuse_misfit(
    source: str,
    whose: str,
    missing: Collection[str],
    unexpected: Collection[str],
    misshapen: Collection[str] = (),
    *,
    starting: bool = False,
) -> None:
    """Raise an error that names the keys of a checkpoint that do not fit, if any.

    Args:
        source: the checkpoint.
        whose: keys it was expected to have.
        missing: of them.
        unexpected: keys.
        misshapen: keys, with the shapes expected and found.
        starting: a training, which could take over a part, asks for it.

    Raises:
        ValueError: there are. Not a RuntimeError: ESPnet catches that and tries other
            names.
    """
    problems = []
    kinds = {"missing": missing, "unexpected": unexpected, "wrong shape": misshapen}
    for title, keys in kinds.items():
        if keys:
            rest = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
            named = ", ".join(sorted(keys)[:_NAMED])
            problems.append(f"{len(keys)} {title}: {named}{rest}")
    if problems:
        raise ValueError(
            f"{source} does not fit {whose}; {'; '.join(problems)}. Use the "
            "config.yaml it was trained with"
            + "; to start training from a part of it, use --init_param"
            * starting
        )


def load_weights(upstream: OFAUpstream, directory: str | Path) -> None:
    """Load ``model.safetensors`` of ``directory`` into an upstream, strictly.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, or keys that do not fit.
    """
    path = Path(directory) / WEIGHTS_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; expected an upstream's weights")
    try:
        state = load_file(path)
    except SafetensorError as e:
        raise ValueError(f"{path}: not a whole safetensors file ({e})") from e
    load_upstream(upstream, state, str(path))


def resolve(name: str | Path, **kwargs) -> Path:
    """Directory of an upstream: itself, or the download of a hub id.

    Raises:
        FileNotFoundError: no such directory or hub id, or no upstream in it.
        OSError, ValueError: see :func:`espnet_ofa.hub.pull`.
    """
    # meta.yaml is asked for only to tell a packed recogniser from an upstream.
    path = pull(name, only=[CONFIG_NAME, WEIGHTS_NAME, "meta.yaml"], **kwargs)
    if not (path / CONFIG_NAME).is_file():
        found = sorted(p.name for p in path.iterdir())[:10]
        packed = (path / "meta.yaml").is_file()
        raise FileNotFoundError(
            f"{name}: expected {CONFIG_NAME} and {WEIGHTS_NAME}, found {found}"
            + (". A recogniser? Load it with espnet_ofa.zoo.pull.load_asr" * packed)
        )
    return path


def from_pretrained(
    name: str | Path, policy: LamPolicy | None = None, **kwargs
) -> OFAUpstream:
    """Load an upstream in eval mode; see :meth:`OFAUpstream.from_pretrained`."""
    path = resolve(name, **kwargs)
    upstream = OFAUpstream(UpstreamConfig.from_yaml(path / CONFIG_NAME), policy)
    load_weights(upstream, path)
    return upstream.eval()
