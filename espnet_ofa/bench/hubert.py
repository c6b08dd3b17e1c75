"""The encoders that people would use instead, untrained: their speed is the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn

Encode = Callable[[Tensor, Tensor], object]

BASE = {"dim": 768, "heads": 12, "ff_dim": 3072}
TINY = {"dim": 32, "heads": 4, "ff_dim": 64}  # --quick
BASE_LAYERS = 12
YARDSTICK = "torchaudio HuBERT base, fp32"


def torchaudio_hubert(layers: int, shape: dict[str, int]) -> nn.Module:
    """HuBERT of torchaudio; base with twelve layers, DistilHuBERT's shape with two."""
    from torchaudio.models import wav2vec2_model

    return wav2vec2_model(
        extractor_mode="group_norm",
        extractor_conv_layer_config=None,
        extractor_conv_bias=False,
        encoder_embed_dim=shape["dim"],
        encoder_projection_dropout=0.1,
        encoder_pos_conv_kernel=128,
        encoder_pos_conv_groups=16,
        encoder_num_layers=layers,
        encoder_num_heads=shape["heads"],
        encoder_attention_dropout=0.1,
        encoder_ff_interm_features=shape["ff_dim"],
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.1,
        encoder_layer_norm_first=False,
        encoder_layer_drop=0.05,
        aux_num_out=None,
    )


def transformers_hubert(layers: int, shape: dict[str, int]) -> nn.Module:
    """HuBERT of transformers, of the same shapes."""
    from transformers import HubertConfig, HubertModel

    return HubertModel(
        HubertConfig(
            hidden_size=shape["dim"],
            num_hidden_layers=layers,
            num_attention_heads=shape["heads"],
            intermediate_size=shape["ff_dim"],
        )
    )


_BUILDERS = {"torchaudio": torchaudio_hubert, "transformers": transformers_hubert}


def find_hubert(
    layers: int, shape: dict[str, int], dtype: str
) -> tuple[dict[str, tuple[nn.Module, Encode]], list[str]]:
    """HuBERT of each package that is there, treated like ours, and the yardstick.

    Args:
        layers: Transformer layers.
        shape: ``dim``, ``heads``, ``ff_dim``.
        dtype: ``fp32``, ``bf16`` (weights, not autocast) or ``int8`` (linear layers,
            quantised dynamically).

    Returns:
        Module and call by name, and notes on what is not there.
    """
    found: dict[str, tuple[nn.Module, Encode]] = {}
    notes = []
    for package, build in _BUILDERS.items():
        if importlib.util.find_spec(package) is None:
            notes.append(f"{package} is left out: pip install {package}")
            continue
        model = convert(build(layers, shape).eval(), dtype)
        name = f"{package} HuBERT, {layers} layers, {dtype}"
        found[name] = model, _ENCODE[package](model)
        if package == "torchaudio" and (layers, dtype) != (BASE_LAYERS, "fp32"):
            model = build(BASE_LAYERS, shape).eval()
            found = {YARDSTICK: (model, _torchaudio(model)), **found}
        elif package == "torchaudio":
            found[YARDSTICK] = found.pop(name)
    return found, notes


def convert(model: nn.Module, dtype: str) -> nn.Module:
    """Cast or quantise in place of training anything; see :func:`find_hubert`."""
    if dtype == "bf16":
        return model.to(torch.bfloat16)
    if dtype == "int8":
        return torch.ao.quantization.quantize_dynamic(
            model, {nn.Linear}, torch.qint8, inplace=True
        )
    return model


def _torchaudio(model: nn.Module) -> Encode:
    # Lengths only where they differ: without them there is no mask to pay for.
    def encode(wave: Tensor, lengths: Tensor) -> object:
        return model(wave, lengths if len(set(lengths.tolist())) > 1 else None)

    return encode


def _transformers(model: nn.Module) -> Encode:
    def encode(wave: Tensor, lengths: Tensor) -> object:
        if len(set(lengths.tolist())) == 1:
            return model(wave)
        steps = torch.arange(wave.shape[1], device=wave.device)
        return model(wave, attention_mask=(steps < lengths[:, None]).long())

    return encode


_ENCODE = {"torchaudio": _torchaudio, "transformers": _transformers}
