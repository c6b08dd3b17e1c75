"""What an adapter can see of the ESPnet config it is being built from.

ESPnet hands a class its own ``*_conf`` and nothing else. Two things need more. The
config that training leaves behind must describe the upstream, not name a directory that
may be gone; ESPnet dumps ``args`` *after* building "because they are allowed to modify
args" (``AbsTask.main_worker``). And mistakes in the neighbourhood (a subsampling
encoder behind a compressor) should be told before a GPU day is spent. So this module
finds the ``args`` of the ``build_model`` call that is running.
"""

from __future__ import annotations

import inspect
import logging
from argparse import Namespace

logger = logging.getLogger(__name__)

# Encoders of ESPnet that have an ``input_layer``; its default is ``conv2d``.
_WITH_INPUT_LAYER = {
    "branchformer",
    "conformer",
    "contextual_block_conformer",
    "contextual_block_transformer",
    "e_branchformer",
    "longformer",
    "multiconv_conformer",
    "transformer",
}
_WHOLE = {None, "linear", "embed", "conv1d1", "conv2d1", "wav2vec"}


def building_args() -> Namespace | None:
    """``args`` of the innermost ``build_model(args)`` on the stack, or None."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "build_model":
            args = frame.f_locals.get("args")
            if isinstance(args, Namespace):
                return args
        frame = frame.f_back
    return None


def loading_checkpoint() -> bool:
    """True inside ``build_model_from_file``, which loads every weight right after."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "build_model_from_file":
            return True
        frame = frame.f_back
    return False


def subsampling_of(encoder: str | None, conf: dict) -> str | None:
    """How an ESPnet encoder subsamples, in the words of its config; None if not."""
    if encoder in _WITH_INPUT_LAYER:
        layer = conf.get("input_layer", "conv2d")
        return None if layer in _WHOLE else f"input_layer: {layer}"
    if encoder == "rnn":
        factors = conf.get("subsample", [2, 2, 1, 1])
        return f"subsample: {list(factors)}" if set(factors or [1]) != {1} else None
    return "its VGG layers" if encoder == "vgg_rnn" else None


def check_neighbours(role: str, frame_ms: float, lam: object) -> None:
    """Warn about parts of the config that do not go with a compressor.

    Args:
        role: ``frontend``, ``preencoder`` or ``encoder``.
        frame_ms: frame period that the adapter was told, in ms.
        lam: lambda that the adapter was told.
    """
    args = building_args()
    if args is None:
        return
    optim_conf = getattr(args, "optim_conf", None) or {}
    decay = 0.01 if getattr(args, "optim", None) == "adamw" else 0.0  # torch's defaults
    if (
        lam == "adaptive"
        and optim_conf.get("weight_decay", decay) > 0
        and not getattr(args, "exclude_weight_decay", False)
    ):
        logger.warning(
            f"{role}: ofa with lam: adaptive: weight_decay would pull lambda to the "
            "middle of its bounds. Set exclude_weight_decay: true"
        )
    if role != "encoder":
        name = getattr(args, "encoder", None)
        how = subsampling_of(name, getattr(args, "encoder_conf", None) or {})
        if how:
            logger.warning(
                f"{role}: ofa compresses, and encoder: {name} subsamples what is left "
                f"({how}): short utterances will fail. Set encoder_conf: "
                "{input_layer: linear}"
            )
    if role == "frontend":
        if getattr(args, "normalize", None) == "global_mvn":
            logger.warning(
                "frontend: ofa with normalize: global_mvn: its statistics would depend "
                "on lambda. Use normalize: utterance_mvn (--feats_normalize utt_mvn)"
            )
        if getattr(args, "specaug", None) is not None:
            logger.warning(
                "frontend: ofa with specaug: its time widths would count units. Use "
                "frontend_conf: {time_mask: {num: 2, max_ms: 200}}"
            )
        return
    hop_ms = frontend_ms(args)
    if hop_ms is not None and abs(hop_ms - frame_ms) > 1e-3:
        logger.warning(
            f"{role}_conf: frame_ms is {frame_ms:g}, but frames of frontend: "
            f"{args.frontend} come every {hop_ms:g} ms: reported periods would be "
            f"wrong. Set frame_ms: {hop_ms:g}"
        )


def frontend_ms(args: Namespace) -> float | None:
    """Frame period of the config's frontend in ms, None where it cannot be told."""
    name = getattr(args, "frontend", None)
    if name in ("espnet_ssl", "wav2vec_cnn"):
        return 20.0
    if name != "default":
        return None
    conf = getattr(args, "frontend_conf", None) or {}
    return 1000.0 * conf.get("hop_length", 128) / parse_rate(conf.get("fs", 16000))


def parse_rate(fs: int | str) -> int:
    """Sampling rate in Hz from ESPnet's ways to write it (16000, "16k")."""
    if isinstance(fs, str) and fs.lower().endswith("k"):
        return round(float(fs[:-1]) * 1000)
    return int(fs)
