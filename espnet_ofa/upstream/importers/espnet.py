"""HuBERT pre-trained with ESPnet (``espnet2.tasks.hubert``, torchaudio's model)."""

from __future__ import annotations

from pathlib import Path

import yaml

from espnet_ofa.upstream.importers.source import (
    Source,
    check_convolutions,
    check_sample_rate,
    convert,
    read_weights,
)
from espnet_ofa.upstream.importers.torchaudio import bare_state, config_from_shapes

PREFIX = "encoder.hubert_pretrain_model."
ENCODER = "torchaudio_hubert"


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
    path = Path(train_config or checkpoint.with_name("config.yaml"))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; expected ESPnet's config.yaml")
    conf = yaml.safe_load(path.read_text(encoding="utf-8"))
    encoder = conf.get("encoder") if isinstance(conf, dict) else None
    if encoder != ENCODER:
        raise ValueError(
            f"{path}: expected `encoder: {ENCODER}` (espnet2.tasks.hubert), found "
            f"{encoder!r}"
        )
    rate = str((conf.get("frontend_conf") or {}).get("fs", 16000))
    kilo = rate.endswith("k")  # 16k or 16000
    check_sample_rate(int(float(rate.rstrip("k")) * (1000 if kilo else 1)), str(path))
    options = conf.get("encoder_conf") or {}
    if options.get("extractor_conv_layer_config"):
        check_convolutions(options["extractor_conv_layer_config"], str(path))

    state = {
        name.removeprefix(PREFIX): value
        for name, value in read_weights(checkpoint).items()
        if name.startswith(PREFIX)
    }
    if not state:
        raise ValueError(f"{checkpoint}: expected tensors below {PREFIX}, found none")
    bare = bare_state(state, str(checkpoint))
    config = config_from_shapes(
        bare,
        options.get("encoder_num_heads", 12),
        options.get("encoder_layer_norm_first", False),
    )
    config.normalize_wave = (
        _normalizes(conf, config.normalize_wave, path)
        if normalize_wave is None
        else normalize_wave
    )
    config.dropout = options.get("encoder_dropout", 0.1)
    config.attention_dropout = options.get("encoder_attention_dropout", 0.1)
    config.activation_dropout = options.get("encoder_ff_interm_dropout", 0.0)
    return Source(str(checkpoint), config, convert(bare, config, str(checkpoint)))


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
