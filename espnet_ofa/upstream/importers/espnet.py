"""HuBERT pre-trained with ESPnet (``espnet2.tasks.hubert``), torchaudio or fairseq."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from espnet_ofa.upstream.extractor import frontend_rate
from espnet_ofa.upstream.importers.fairseq import check_options, renamed
from espnet_ofa.upstream.importers.source import (
    Source,
    check_convolutions,
    check_sample_rate,
    convert,
    read_weights,
)
from espnet_ofa.upstream.importers.torchaudio import bare_state, config_from_shapes

CONFIG_NAME = "config.yaml"
# Where `encoder` of the configuration puts its tensors.
PREFIXES = {
    "torchaudio_hubert": "encoder.hubert_pretrain_model.",
    "hubert_pretrain": "encoder.encoder.",
}
# Names and defaults of its options: heads, layer norm first; dropout, that of attention
# and that of the activation.
OPTIONS = {
    "torchaudio_hubert": (
        ("encoder_num_heads", 12),
        ("encoder_layer_norm_first", False),
        ("encoder_dropout", 0.1),
        ("encoder_attention_dropout", 0.1),
        ("encoder_ff_interm_dropout", 0.0),
    ),
    "hubert_pretrain": (
        ("attention_heads", 12),
        ("layer_norm_first", False),
        ("dropout_rate", 0.0),
        ("attention_dropout_rate", 0.0),
        # By fairseq's name: ESPnet drops its own, activation_dropout_rate.
        ("activation_dropout", 0.0),
    ),
}


def is_ssl_task(checkpoint: Path) -> bool:
    """Whether ``espnet2.tasks.ssl`` made it, whose encoders are ESPnet's own.

    Raises:
        ValueError: it did, at another sampling rate than 16 kHz.
    """
    if checkpoint.is_dir():
        return False
    path = checkpoint.with_name(CONFIG_NAME)
    if not path.is_file():
        return False
    conf = _read(path)
    if not _of_ssl_task(conf):
        return False
    _check_rate(conf, path)
    return True


def read_espnet(
    checkpoint: str | Path,
    train_config: str | Path | None = None,
    *,
    normalize_wave: bool | None = None,
) -> Source:
    """Read a checkpoint of ESPnet's HuBERT pre-training.

    Args:
        checkpoint: e.g. ``exp/hubert/valid.loss.ave.pth``.
        train_config: its ``config.yaml``; by default the one beside the checkpoint.
        normalize_wave: overrides what the configuration says of the waveform.

    Raises:
        FileNotFoundError: no such files.
        ValueError: another encoder, another sampling rate, or weights that do not fit.
    """
    checkpoint = Path(checkpoint)
    path = Path(train_config or checkpoint.with_name(CONFIG_NAME))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; expected ESPnet's config.yaml")
    conf = _read(path)
    encoder = conf.get("encoder")
    if _of_ssl_task(conf):
        raise ValueError(
            f"{path}: `encoder: {encoder}` of espnet2.tasks.ssl is ESPnet's own, which "
            "no upstream is like: it can only be a teacher"
        )
    if encoder not in PREFIXES:
        raise ValueError(
            f"{path}: expected `encoder: {' or '.join(PREFIXES)}` (espnet2.tasks."
            f"hubert), found {encoder!r}"
        )
    _check_rate(conf, path)
    options = conf.get("encoder_conf") or {}
    bare = _bare(read_weights(checkpoint), PREFIXES[encoder], checkpoint)
    if encoder == "hubert_pretrain":
        check_options(options, str(path))
    elif options.get("extractor_conv_layer_config"):
        check_convolutions(options["extractor_conv_layer_config"], str(path))
    found = [options.get(name, default) for name, default in OPTIONS[encoder]]
    config = config_from_shapes(bare, *found[:2])
    config.dropout, config.attention_dropout, config.activation_dropout = found[2:]
    config.normalize_wave = (
        _normalizes(conf, config.normalize_wave, path)
        if normalize_wave is None
        else normalize_wave
    )
    return Source(str(checkpoint), config, convert(bare, config, str(checkpoint)))


def _read(path: Path) -> dict[str, Any]:
    conf = yaml.safe_load(path.read_text(encoding="utf-8"))
    return conf if isinstance(conf, dict) else {}


def _of_ssl_task(conf: dict[str, Any]) -> bool:
    return {"loss", "util"} <= conf.keys()


def _check_rate(conf: dict[str, Any], path: Path) -> None:
    try:
        rate = frontend_rate(conf.get("frontend_conf"))
    except ValueError as error:
        raise ValueError(f"{path}: frontend_conf: {error}") from error
    check_sample_rate(rate, str(path))


def _bare(state: dict[str, Tensor], prefix: str, checkpoint: Path) -> dict[str, Tensor]:
    """The encoder's tensors, named as in Hugging Face's ``HubertModel``."""
    own = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    if not own:
        raise ValueError(f"{checkpoint}: expected tensors below {prefix}, found none")
    if prefix == PREFIXES["hubert_pretrain"]:
        return renamed(own, str(checkpoint))
    return bare_state(own, str(checkpoint))


def _normalizes(conf: dict, layer_norms: bool, path: Path) -> bool:
    """Whether training normalised the waveform, in a way that ours can."""
    kind = conf.get("normalize")
    if kind is None:
        return False
    options = conf.get("normalize_conf") or {}
    if kind == "utterance_mvn" and options.get("norm_means", True):
        if options.get("norm_vars", False):
            return True
        if not layer_norms:  # the first group norm removes a constant anyway
            return False
    raise ValueError(
        f"{path}: `normalize: {kind}` with {options} has no counterpart here; if "
        "waveforms were of zero mean and unit variance, give normalize_wave"
    )
