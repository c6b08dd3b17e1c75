"""HuBERT and wav2vec 2.0 as torchaudio keeps them: a state dict and no configuration.

What the shapes do not tell (heads, place of the layer norms, whether the waveform is
normalised) is known for the published models and can be given for others.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.importers.source import Source, convert, read_weights

HEADS = {768: 12, 1024: 16, 1280: 16}  # base, large, extra large
# Beside the encoder: a CTC head, or HuBERT's heads in pre-training.
HEAD_PREFIXES = ("aux.", "mask_generator.", "logit_generator.")


def read_torchaudio(
    path: str | Path,
    *,
    heads: int | None = None,
    norm_first: bool | None = None,
    normalize_wave: bool | None = None,
) -> Source:
    """Read a state dict of ``torchaudio.models.{hubert,wav2vec2}_*``.

    Args:
        path: ``.pth``, ``.pt`` or ``.safetensors``.
        heads: attention heads; by default those of the published model of this width.
        norm_first: layer norm before each block; by default wherever the extractor has
            layer norms, as in all published models.
        normalize_wave: whether it wants waveforms of zero mean and unit variance; by
            default likewise.

    Raises:
        FileNotFoundError, ValueError: no such file, or not such a model.
    """
    path = Path(path)
    state = bare_state(read_weights(path), str(path))
    width = state["feature_projection.projection.weight"].shape[0]
    if heads is None and width not in HEADS:
        raise ValueError(
            f"{path}: how many attention heads a model of width {width} has is not "
            f"known ({HEADS} are): give heads"
        )
    config = config_from_shapes(state, heads or HEADS[width], norm_first)
    if normalize_wave is not None:
        config.normalize_wave = normalize_wave
    return Source(str(path), config, convert(state, config, str(path)))


def bare_state(state: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """The encoder's tensors, named as in Hugging Face's ``HubertModel``.

    Raises:
        ValueError: not torchaudio's names, or WavLM's.
    """
    prefix = "wav2vec2." if any(k.startswith("wav2vec2.") for k in state) else ""
    encoder = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and not name.startswith(HEAD_PREFIXES)
    }
    others = [n for n in state if not n.startswith((prefix, *HEAD_PREFIXES))]
    projection = "encoder.feature_projection.projection.weight"
    if projection not in encoder or others:
        raise ValueError(
            f"{origin}: expected torchaudio's names (feature_extractor.*, encoder."
            f"feature_projection.*, encoder.transformer.*), found "
            f"{', '.join(sorted(others or state)[:5])}, ..."
        )
    if any("gru_rel_pos" in name for name in encoder):
        raise ValueError(
            f"{origin}: WavLM is read in Hugging Face's layout only; found torchaudio's"
        )
    return {
        name.replace("encoder.feature_projection.", "feature_projection.").replace(
            "encoder.transformer.", "encoder."
        ): value
        for name, value in encoder.items()
    }


def config_from_shapes(
    state: dict[str, Tensor], heads: int, norm_first: bool | None
) -> UpstreamConfig:
    """Shape of what :func:`bare_state` gave."""
    convs = "feature_extractor.conv_layers"
    layer_norms = f"{convs}.1.layer_norm.weight" in state
    width, channels = state["feature_projection.projection.weight"].shape
    depth = 1 + max(
        (
            int(m[1])
            for m in map(re.compile(r"encoder\.layers\.(\d+)").match, state)
            if m
        ),
        default=-1,
    )
    ff = state.get("encoder.layers.0.feed_forward.intermediate_dense.weight")
    kernel, groups = 128, 16
    for name in ("weight_v", "parametrizations.weight.original1"):
        conv = state.get(f"encoder.pos_conv_embed.conv.{name}")
        if conv is not None:  # (width, width / groups, kernel)
            kernel, groups = conv.shape[2], width // conv.shape[1]
    return UpstreamConfig(
        extractor="conv",
        extractor_conf={
            "dim": channels,
            "norm": "layer" if layer_norms else "group",
            "bias": f"{convs}.0.conv.bias" in state,
        },
        normalize_wave=layer_norms,
        compressor="none",
        dim=width,
        layers=depth,
        heads=heads,
        ff_dim=4 * width if ff is None else ff.shape[0],
        pos_kernel=kernel,
        pos_groups=groups,
        norm_first=layer_norms if norm_first is None else norm_first,
    )
