"""HuBERT, wav2vec 2.0 and WavLM in Hugging Face's layout.

``config.json``, ``model.safetensors`` (or ``pytorch_model.bin``) and
``preprocessor_config.json`` in one folder. Only WavLM needs ``transformers`` to run.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from torch import Tensor

from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.importers.source import (
    Source,
    check_convolutions,
    check_sample_rate,
    convert,
    read_weights,
)

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.json"
WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
PREPROCESSOR_NAME = "preprocessor_config.json"
KINDS = ("hubert", "wav2vec2", "wavlm")
# Options that change the encoder, with the values that ours has; absent means the same.
FIXED = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
    "add_adapter": False,
    "adapter_attn_dim": None,
}


def read_huggingface(
    directory: str | Path, *, normalize_wave: bool | None = None
) -> Source:
    """Read a folder in Hugging Face's layout.

    Args:
        directory: the folder.
        normalize_wave: whether it wants waveforms of zero mean and unit variance; by
            default as ``preprocessor_config.json`` says or, without one, wherever the
            extractor has layer norms.

    Raises:
        FileNotFoundError: no configuration or no weights.
        ValueError: another architecture, another sampling rate, or weights that do not
            fit; names what.
    """
    directory = Path(directory)
    conf = _read_json(directory / CONFIG_NAME)
    origin = str(directory)
    config = _config(conf, origin)
    preprocessor = directory / PREPROCESSOR_NAME
    if preprocessor.is_file():
        values = _read_json(preprocessor)
        check_sample_rate(values.get("sampling_rate", 16000), str(preprocessor))
        config.normalize_wave = values.get("do_normalize", True)
    else:
        logger.info(
            "%s: no %s; normalising waveforms: %s",
            directory,
            PREPROCESSOR_NAME,
            config.normalize_wave,
        )
    if normalize_wave is not None:
        config.normalize_wave = normalize_wave

    state = _encoder_state(_read_weights(directory), conf["model_type"], origin)
    if conf["model_type"] != "wavlm":
        return Source(origin, config, convert(state, config, origin))
    layers = "encoder.layers."
    rest = {n.removeprefix(layers): v for n, v in state.items() if n.startswith(layers)}
    front = {name: v for name, v in state.items() if not name.startswith(layers)}
    depth, config.layers = config.layers, 0
    converted = convert(front, config, origin)
    config.layers = depth
    return Source(origin, config, converted, (conf, rest))


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; expected Hugging Face's layout")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise ValueError(f"{path}: not JSON ({e})") from e
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping, found {type(values).__name__}")
    return values


def _config(conf: dict, origin: str) -> UpstreamConfig:
    kind = conf.get("model_type")
    if kind not in KINDS:
        raise ValueError(
            f"{origin}/{CONFIG_NAME}: expected model_type {', '.join(KINDS)}; found "
            f"{kind!r}"
        )
    for name, value in FIXED.items():
        if conf.get(name, value) != value:
            raise ValueError(
                f"{origin}/{CONFIG_NAME}: expected {name}: {value!r}, found "
                f"{conf[name]!r}; this variant is not supported"
            )
    default = {
        "conv_dim": [512] * 7,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    }
    shapes = [conf.get(name, value) for name, value in default.items()]
    norm = conf.get("feat_extract_norm", "group")
    return UpstreamConfig(
        extractor="conv",
        extractor_conf={
            "dim": check_convolutions(
                [list(x) for x in zip(*shapes, strict=True)], origin
            ),
            "norm": norm,
            "bias": conf.get("conv_bias", False),
        },
        normalize_wave=norm == "layer",
        compressor="none",
        dim=conf.get("hidden_size", 768),
        layers=conf.get("num_hidden_layers", 12),
        heads=conf.get("num_attention_heads", 12),
        ff_dim=conf.get("intermediate_size", 3072),
        pos_kernel=conf.get("num_conv_pos_embeddings", 128),
        pos_groups=conf.get("num_conv_pos_embedding_groups", 16),
        norm_first=conf.get("do_stable_layer_norm", False),
        dropout=conf.get("hidden_dropout", 0.1),
        attention_dropout=conf.get("attention_dropout", 0.1),
        activation_dropout=conf.get("activation_dropout", 0.1),
    )


def _read_weights(directory: Path) -> dict[str, Tensor]:
    for name in WEIGHTS_NAMES:
        if (directory / name).is_file():
            return read_weights(directory / name)
    shards = sorted(p.name for p in directory.glob("*.index.json"))
    hint = "; save it again in one file (max_shard_size)" if shards else ""
    raise FileNotFoundError(
        f"{directory}: expected {' or '.join(WEIGHTS_NAMES)}, found "
        f"{sorted(p.name for p in directory.iterdir())[:10]}{hint}"
    )


def _encoder_state(
    state: dict[str, Tensor], kind: str, origin: str
) -> dict[str, Tensor]:
    """The encoder's tensors; those of heads and masks are left out, and logged."""
    prefix = f"{kind}."
    if any(name.startswith(prefix) for name in state):  # a model with a head
        heads = sorted(name for name in state if not name.startswith(prefix))
        state = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
        logger.info("%s: left out %s", origin, ", ".join(heads) or "nothing")
    # Masks on projected frames, where ours are on units before the projection.
    return {name: v for name, v in state.items() if name != "masked_spec_embed"}
