"""fairseq's names of HuBERT's tensors, as they are in ESPnet's checkpoints.

fairseq's own checkpoints run code when they are loaded: for the published models take
Hugging Face's layout.
"""

from __future__ import annotations

import re

from torch import Tensor

# Their names -> those in Hugging Face's HubertModel, in parts.
_RENAMED = {
    r"^layer_norm\.": "feature_projection.layer_norm.",
    r"^post_extract_proj\.": "feature_projection.projection.",
    r"(conv_layers\.\d+)\.0\.": r"\1.conv.",
    r"(conv_layers\.\d+)\.2\.(1\.)?": r"\1.layer_norm.",
    r"pos_conv\.0\.": "pos_conv_embed.conv.",
    r"\.self_attn\.": ".attention.",
    r"\.self_attn_layer_norm\.": ".layer_norm.",
    r"\.fc1\.": ".feed_forward.intermediate_dense.",
    r"\.fc2\.": ".feed_forward.output_dense.",
}
# Heads and masks of pre-training.
_LEFT_OUT = ("mask_emb", "final_proj.", "label_embs_concat", "target_glu.")
# Options that change the encoder, with the values that ours has; absent means the same.
_FIXED = {
    "activation_fn": "gelu",
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
}


def check_options(options: dict, origin: str) -> None:
    """Raise a ValueError where fairseq's options make another encoder than ours."""
    for name, value in _FIXED.items():
        found = str(options.get(name, value))
        if found.replace(" ", "") != value.replace(" ", ""):
            raise ValueError(f"{origin}: expected {name}: {value!r}, found {found!r}")


def renamed(state: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """The encoder's tensors, named as in Hugging Face's ``HubertModel``.

    Raises:
        ValueError: not fairseq's HuBERT, or without a projection.
    """
    found = {}
    for name, value in state.items():
        if not name.startswith(_LEFT_OUT):
            for pattern, replacement in _RENAMED.items():
                name = re.sub(pattern, replacement, name)
            found[name] = value
    if "feature_projection.projection.weight" not in found:
        raise ValueError(
            f"{origin}: expected fairseq's names of HuBERT (feature_extractor.*, "
            f"post_extract_proj.*, encoder.*), found {sorted(state)[:5]}, ..."
        )
    return found
