"""What an adapter can see of the ESPnet config it is being built from.

ESPnet hands a class its own ``*_conf`` and nothing else. Two things need more. The
config that training leaves behind must describe the upstream, not name a directory that
may be gone; ESPnet dumps ``args`` *after* building "because they are allowed to modify
args" (``AbsTask.main_worker``). And mistakes in the neighbourhood (a subsampling
encoder behind a compressor) should be told before a GPU day is spent. So this module
looks into the ``build_model`` call that is running.
"""

from __future__ import annotations

import inspect
import logging
from argparse import Namespace
from collections.abc import Collection
from pathlib import Path

import torch

from espnet_ofa.upstream.checkpoint import refuse_misfit
from espnet_ofa.upstream.extractor import frontend_rate

logger = logging.getLogger(__name__)

# Encoders of ESPnet that have an ``input_layer``; its default is ``conv2d``.
_WITH_INPUT_LAYER = {
    "branchformer",
    "conformer",
    "contextual_block_conformer",
    "contextual_block_transformer",
    "e_branchformer",
    "linear",
    "longformer",
    "multiconv_conformer",
    "transformer",
}
# Those that give an output for every frame; ``conv2d1`` and its kind lose the edges.
_WHOLE = {None, "linear", "wav2vec"}

DEFAULT_FRAME_MS = 8.0  # ESPnet's default frontend: 128 samples at 16 kHz
_TOLERANCE = 0.1


def _locals_of(function: str) -> dict | None:
    """Local variables of the innermost call of ``function`` on the stack."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == function:
            return frame.f_locals
        frame = frame.f_back
    return None


def building_args() -> Namespace | None:
    """``args`` of the ``build_model(args)`` that is running, or None."""
    args = (_locals_of("build_model") or {}).get("args")
    return args if isinstance(args, Namespace) else None


def find_seed(seed: int | None) -> int:
    """Seed of an adapter's draws.

    What the config says or, where it says nothing, ``--seed`` of the training that the
    running ``build_model`` is for, so that seeds of a comparison differ in what is
    drawn, too; 0 elsewhere.
    """
    return int(getattr(building_args(), "seed", 0)) if seed is None else seed


def parts_built() -> list | None:
    """Frontend, preencoder and encoder that the running ``build_model`` has made.

    None where no ``build_model`` is running.
    """
    found = _locals_of("build_model")
    if found is None:
        return None
    parts = (found.get(name) for name in ("frontend", "preencoder", "encoder"))
    return [part for part in parts if part is not None]


def loading_checkpoint() -> bool:
    """True inside ``build_model_from_file``, which loads every weight right after."""
    return _locals_of("build_model_from_file") is not None


def checkpoint_to_load() -> Path | None:
    """The file that the running ``build_model_from_file`` will load, or None."""
    path = (_locals_of("build_model_from_file") or {}).get("model_file")
    return Path(path) if isinstance(path, (str, Path)) else None


def refuse_checkpoint(
    whose: str, missing: Collection[str], unexpected: Collection[str]
) -> None:
    """:func:`refuse_misfit` of what is being loaded, by the name of its file."""
    path = checkpoint_to_load()
    source = "the checkpoint" if path is None else str(path)
    refuse_misfit(source, whose, missing, unexpected, starting=path is None)


def initialising() -> bool:
    """True inside ``--init_param``: a new training takes over another's weights."""
    return _locals_of("load_pretrained_model") is not None


def subsampling_of(encoder: str | None, conf: dict) -> str | None:
    """How an ESPnet encoder subsamples, in the words of its config; None if not.

    Losing frames at the edges counts: an utterance of a few units would be too short.
    """
    if encoder in _WITH_INPUT_LAYER:
        layer = conf.get("input_layer", "conv2d")
        return None if layer in _WHOLE else f"input_layer: {layer}"
    if encoder == "rnn":
        factors = conf.get("subsample", [2, 2, 1, 1])
        return f"subsample: {list(factors)}" if set(factors or [1]) != {1} else None
    return "its VGG layers" if encoder == "vgg_rnn" else None


def check_neighbours(role: str, lam: object) -> None:
    """Warn about parts of the config that do not go with a compressor.

    Args:
        role: ``frontend``, ``preencoder`` or ``encoder``.
        lam: lambda that the adapter was told.

    Raises:
        ValueError: another part compresses too, or cannot take units.
    """
    args = building_args()
    if args is None:
        return
    roles = ("frontend", "preencoder", "encoder")
    ours = [name for name in roles if getattr(args, name, None) == "ofa"]
    if len(ours) > 1:
        raise ValueError(
            f"{' and '.join(ours)} are both ofa, but lambda enters once: a second "
            "compressor would take units for frames. Keep one of them"
        )
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
    if lam == "adaptive" and getattr(args, "model", None) != "ofa":
        logger.warning(
            f"{role}: ofa with lam: adaptive: without model: ofa, lambda has only the "
            "derivative of the loss, which is mostly noise"
        )
    if role != "encoder":
        name = getattr(args, "encoder", None)
        if name in ("rnn", "vgg_rnn") and lam is not None:
            raise ValueError(
                f"{role}: ofa with encoder: {name}, which takes batches with the "
                "longest first only: the longest utterance need not have the most "
                "units. Take another encoder, or encoder: ofa with encoder_conf: "
                "{encoder: rnn}, which sorts them"
            )
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


def find_frame_ms(role: str, frame_ms: float | None) -> float:
    """Period in ms of the frames that reach a preencoder or encoder.

    What the config says or, where it says nothing, what the frontend does. It is then
    written into the config that training leaves behind.

    Raises:
        ValueError: the frontend contradicts the config.
    """
    args = building_args()
    if args is None or (frame_ms is not None and loading_checkpoint()):
        return DEFAULT_FRAME_MS if frame_ms is None else frame_ms
    found = _frontend_ms(role, args)
    if frame_ms is None:
        frame_ms = DEFAULT_FRAME_MS if found is None else found
        getattr(args, f"{role}_conf")["frame_ms"] = frame_ms
    elif found is not None and abs(found / frame_ms - 1) > _TOLERANCE:
        raise ValueError(
            f"{role}_conf: frame_ms is {frame_ms:g}, but frames of frontend: "
            f"{args.frontend} come every {found:g} ms: reported periods and alpha's "
            f"start would be wrong. Set frame_ms: {found:g}, or leave it out"
        )
    return frame_ms


def _frontend_ms(role: str, args: Namespace) -> float | None:
    """Frame period of the config's frontend in ms, None where it has none of its own.

    Measured, because not every frontend tells its hop: s3prl may repeat its frames,
    and Whisper strides once more. On two lengths, since an utterance's edges blur one.
    """
    # Other preencoders may hop.
    before = None if role == "preencoder" else getattr(args, "preencoder", None)
    frontend = (_locals_of("build_model") or {}).get("frontend")
    if frontend is None or before not in (None, "linear"):
        return None
    fs = frontend_rate(getattr(args, "frontend_conf", None))
    training = frontend.training
    frontend.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        short, long = (
            frontend(torch.zeros(1, n * fs), torch.tensor([n * fs]))[0].shape[1]
            for n in (1, 3)
        )
    frontend.train(training)
    return 2000.0 / (long - short) if long > short else None
