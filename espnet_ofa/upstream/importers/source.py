"""What every importer produces: the shape and the weights of a published encoder."""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.extractor import ConvExtractor
from espnet_ofa.upstream.model import OFAUpstream


@dataclasses.dataclass
class Source:
    """An encoder read from another library's files.

    Attributes:
        origin: file or folder, for messages.
        config: its shape, without compressor.
        state: its weights under our names, for :class:`OFAUpstream`; without the
            Transformer's layers where ``relative`` is set.
        relative: WavLM's layers, which have a relative position bias: the
            ``config.json`` and the weights below ``encoder.layers``; else None.
    """

    origin: str
    config: UpstreamConfig
    state: dict[str, Tensor]
    relative: tuple[dict, dict[str, Tensor]] | None = None


# Our names -> those that torchaudio and Hugging Face share, below their prefixes.
_LAYER = {
    "attention.qkv": tuple(f"attention.{x}_proj" for x in "qkv"),
    "attention.out": ("attention.out_proj",),
    "attention_norm": ("layer_norm",),
    "ff_in": ("feed_forward.intermediate_dense",),
    "ff_out": ("feed_forward.output_dense",),
    "ff_norm": ("final_layer_norm",),
}
_NAMES: tuple[tuple[str, Callable[[re.Match], tuple[str, ...]]], ...] = (
    (
        r"extractor\.convs\.(\d+)\.(.+)",
        lambda m: (f"feature_extractor.conv_layers.{m[1]}.conv.{m[2]}",),
    ),
    (
        r"extractor\.norms\.(\d+)\.(.+)",
        lambda m: (f"feature_extractor.conv_layers.{m[1]}.layer_norm.{m[2]}",),
    ),
    (r"norm\.(.+)", lambda m: (f"feature_projection.layer_norm.{m[1]}",)),
    (r"project\.(.+)", lambda m: (f"feature_projection.projection.{m[1]}",)),
    (
        r"transformer\.position\.(.+)",
        lambda m: (f"encoder.pos_conv_embed.{m[1]}",),
    ),
    (r"transformer\.norm\.(.+)", lambda m: (f"encoder.layer_norm.{m[1]}",)),
    (
        r"transformer\.layers\.(\d+)\.(.+)\.(weight|bias)",
        lambda m: tuple(f"encoder.layers.{m[1]}.{x}.{m[3]}" for x in _LAYER[m[2]]),
    ),
)


def their_names(name: str) -> tuple[str, ...]:
    """Where a tensor of ours is in Hugging Face's ``HubertModel``; parts in order."""
    for pattern, names in _NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return names(match)
    raise KeyError(name)


def convert(
    state: dict[str, Tensor], config: UpstreamConfig, origin: str
) -> dict[str, Tensor]:
    """Weights under our names, each of theirs used exactly once.

    Args:
        state: names as in Hugging Face's ``HubertModel``.
        config: shape that they should have.
        origin: for messages.

    Raises:
        ValueError: names every tensor that is missing, unexpected or misshapen.
    """
    state = {_new_weight_norm(name): value for name, value in state.items()}
    with torch.device("meta"):
        wanted = OFAUpstream(config).state_dict()
    parts = {n: their_names(n) for n in wanted if not n.startswith("policy.")}
    used = {theirs for names in parts.values() for theirs in names}
    found = {
        name: torch.cat([state[x] for x in theirs])
        for name, theirs in parts.items()
        if all(x in state for x in theirs)
    }
    shapes = [
        f"{' + '.join(parts[name])} (expected {tuple(wanted[name].shape)}, found "
        f"{tuple(value.shape)})"
        for name, value in found.items()
        if value.shape != wanted[name].shape
    ]
    complain(origin, sorted(used - set(state)), sorted(set(state) - used), shapes)
    return {name: value.float() for name, value in found.items()}


def complain(
    origin: str, missing: list[str], unexpected: list[str], shapes: list[str]
) -> None:
    """Raise a ValueError that names the tensors, if there are any."""
    kinds = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}
    problems = [f"{kind}: {', '.join(x)}" for kind, x in kinds.items() if x]
    if problems:
        raise ValueError(
            f"{origin}: these weights are not those of the model that its "
            f"configuration describes; {'; '.join(problems)}"
        )


def _new_weight_norm(name: str) -> str:
    """torch's name for a weight norm's parts since 2.1."""
    for part, old in enumerate("gv"):
        if name.endswith(f".weight_{old}"):
            return (
                name[: -1 - len("weight_")] + f"parametrizations.weight.original{part}"
            )
    return name


def check_convolutions(layers: list[list[int]], origin: str) -> int:
    """Channels of the extractor's convolutions, (channels, kernel, stride) each.

    Raises:
        ValueError: not the seven of HuBERT and wav2vec 2.0, which make 20 ms frames.
    """
    widths = {int(layer[0]) for layer in layers}
    shape = tuple((int(layer[1]), int(layer[2])) for layer in layers)
    if shape != ConvExtractor.LAYERS or len(widths) != 1:
        raise ValueError(
            f"{origin}: expected convolutions of one width with (kernel, stride) "
            f"{ConvExtractor.LAYERS}, found {[tuple(layer) for layer in layers]}"
        )
    return widths.pop()


def check_sample_rate(rate: int, origin: str) -> None:
    """Raise unless a model was trained at 16 kHz."""
    if rate != 16000:
        raise ValueError(
            f"{origin}: expected a model for audio at 16000 Hz, found {rate} Hz"
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file or of a plain PyTorch state dict.

    They stay in the file until they are used, unless its format is an old one; no code
    in it is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; expected a model's weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(
            str(path),
            map_location="cpu",
            weights_only=True,
            mmap=zipfile.is_zipfile(path),
        )
    except SafetensorError as e:
        raise ValueError(f"{path}: not a whole safetensors file ({e})") from e
    except Exception as e:  # pickle and zip errors share no base class
        cause = next(iter(str(e).splitlines()), "")
        raise ValueError(
            f"{path}: expected a state dict (tensors by name) that loads with "
            "weights_only=True, found a damaged file or one that runs code when it is "
            f"loaded, so it was not ({type(e).__name__}: {cause})"
        ) from e
    items = state.items() if isinstance(state, dict) else ()
    other = [
        str(name)
        for name, value in items
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if other or not isinstance(state, dict):
        raise ValueError(
            f"{path}: expected a state dict (tensors by name), found "
            f"{type(state).__name__}" + (" with " + ", ".join(other[:5])) * bool(other)
        )
    return state
