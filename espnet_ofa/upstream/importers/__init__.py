"""Published encoders become upstreams: Hugging Face, torchaudio, ESPnet."""

from __future__ import annotations

import logging
from pathlib import Path

from espnet_ofa.hub import pull
from espnet_ofa.subsampling.policy import LamPolicy
from espnet_ofa.upstream import checkpoint
from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.importers import huggingface
from espnet_ofa.upstream.importers.espnet import read_espnet
from espnet_ofa.upstream.importers.huggingface import read_huggingface
from espnet_ofa.upstream.importers.source import Source, read_weights
from espnet_ofa.upstream.importers.torchaudio import read_torchaudio
from espnet_ofa.upstream.model import OFAUpstream

__all__ = ["Source", "build", "find_source", "load_any", "read_source"]

logger = logging.getLogger(__name__)

POSITION = "transformer.position."


def find_source(name: str | Path, **kwargs) -> Path:
    """Folder or file of an encoder: itself, or the download of a hub id.

    Raises:
        OSError, ValueError: see :func:`espnet_ofa.hub.pull`.
    """
    path = Path(name).expanduser()
    if path.is_file() and path.suffix != ".zip":
        return path
    wanted = [huggingface.CONFIG_NAME, huggingface.PREPROCESSOR_NAME]
    wanted += [checkpoint.CONFIG_NAME, checkpoint.WEIGHTS_NAME]
    folder = pull(name, only=wanted, **kwargs)
    if not path.exists() and not (folder / checkpoint.WEIGHTS_NAME).is_file():
        # Many repositories have the older form only.
        folder = pull(name, only=[*wanted, huggingface.WEIGHTS_NAMES[1]], **kwargs)
    return folder


def read_source(path: str | Path, **hints) -> Source:
    """Read an encoder, whatever its layout.

    Args:
        path: folder of one of our upstreams or in Hugging Face's layout; or a state
            dict of torchaudio; or a checkpoint of ESPnet's HuBERT task beside its
            ``config.yaml``.
        **hints: ``normalize_wave``; for torchaudio also ``heads`` and ``norm_first``.

    Raises:
        FileNotFoundError, ValueError: nothing there that is known, or it does not fit.
        TypeError: a hint that this layout does not take.
    """
    path = Path(path)
    if not path.is_dir():
        if path.with_name(checkpoint.CONFIG_NAME).is_file():
            return read_espnet(path, **hints)
        return read_torchaudio(path, **hints)
    if (path / huggingface.CONFIG_NAME).is_file():
        return read_huggingface(path, **hints)
    own, weights = path / checkpoint.CONFIG_NAME, path / checkpoint.WEIGHTS_NAME
    if own.is_file() and weights.is_file():
        if hints:
            raise ValueError(
                f"{path}: expected no hints, found {', '.join(sorted(hints))}: the "
                f"{own.name} of our upstreams says it all"
            )
        return Source(str(path), UpstreamConfig.from_yaml(own), read_weights(weights))
    found = sorted(p.name for p in path.iterdir())
    files = [n for n in found if n.endswith((".pth", ".pt", ".safetensors"))]
    raise FileNotFoundError(
        f"{path}: expected {huggingface.CONFIG_NAME} (Hugging Face) or {own.name} and "
        f"{weights.name} (ours), found {found[:10]}"
        + (f". Name the file itself, e.g. {path / files[0]}" if files else "")
    )


def load_any(
    name: str | Path,
    changes: dict | None = None,
    policy: LamPolicy | None = None,
    hints: dict | None = None,
) -> OFAUpstream:
    """An upstream from any encoder, in eval mode; see :func:`build`.

    Args:
        name: folder, file or hub id; see :func:`find_source`.
        changes: keys of :class:`UpstreamConfig` to replace.
        policy: see :class:`OFAUpstream`.
        hints: see :func:`read_source`.
    """
    return build(read_source(find_source(name), **(hints or {})), changes, policy)


def build(
    source: Source, changes: dict | None = None, policy: LamPolicy | None = None
) -> OFAUpstream:
    """An upstream around given weights, in eval mode.

    A compressor that the encoder did not have starts fresh: so a published 20 ms model
    goes on to train as once-for-all.

    Args:
        source: configuration and weights.
        changes: keys of :class:`UpstreamConfig` to replace, e.g. ``{"compressor":
            "cif"}``; fewer ``layers`` keep the first ones, ``pos_kernel: 0`` no
            positional convolution.
        policy: see :class:`OFAUpstream`.

    Raises:
        ValueError: WavLM, or changes that the weights do not fit, by name.
    """
    if source.relative is not None:
        raise ValueError(
            f"{source.origin}: WavLM's attention has a relative position bias in "
            "frames, which units of any length have no place for: it can only be a "
            "teacher"
        )
    config, changes = source.config, dict(changes or {})
    fresh = changes.get("compressor", config.compressor) != config.compressor
    if fresh:
        changes.setdefault("compressor_conf", {})
    wanted = UpstreamConfig.from_dict({**config.to_dict(), **changes})
    if wanted.layers > config.layers:
        raise ValueError(
            f"{source.origin} has {config.layers} layers; {wanted.layers} are asked for"
        )
    upstream = OFAUpstream(wanted, policy)
    state = {n: v for n, v in source.state.items() if layer_of(n) < wanted.layers}
    if not wanted.pos_kernel:  # a squeeze has one of its own
        state = {n: v for n, v in state.items() if not n.startswith(POSITION)}
    new = ("compressor.", "upsampler.") if fresh else ()
    if wanted.condition != config.condition:
        new += ("condition.",)
    if new:
        own = dict(checkpoint.upstream_state(upstream))
        state = {n: v for n, v in state.items() if not n.startswith(new)}
        state |= {n: v for n, v in own.items() if n.startswith(new)}
        logger.info("%s: new here: %s", source.origin, ", ".join(new))
    checkpoint.load_upstream(upstream, state, source.origin)
    return upstream.eval()


def layer_of(name: str) -> int:
    """Number of the Transformer layer that a tensor of ours is in; -1: none."""
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["transformer", "layers"] else -1
