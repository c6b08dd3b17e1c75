"""``encoder: ofa``: compression in front of one of ESPnet's own encoders."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.encoder.rnn_encoder import RNNEncoder
from torch import Tensor

from espnet_ofa.asr.adapter import Adapter
from espnet_ofa.asr.building import (
    check_neighbours,
    find_frame_ms,
    find_seed,
    subsampling_of,
)
from espnet_ofa.asr.stem import build_front
from espnet_ofa.subsampling import LamPolicy
from espnet_ofa.subsampling.rate import LamTrain

_INNER = {
    "branchformer": "branchformer_encoder.BranchformerEncoder",
    "conformer": "conformer_encoder.ConformerEncoder",
    "e_branchformer": "e_branchformer_encoder.EBranchformerEncoder",
    "linear": "linear_encoder.LinearEncoder",
    "multiconv_conformer": "multiconvformer_encoder.MultiConvConformerEncoder",
    "rnn": "rnn_encoder.RNNEncoder",
    "transformer": "transformer_encoder.TransformerEncoder",
}
_STREAMS = "it streams in blocks of input frames, and units have no fixed rate"
_WAVEFORM = "it reads the waveform; to compress an SSL model use `frontend: ofa`"
_REFUSED = {
    "contextual_block_conformer": _STREAMS,
    "contextual_block_transformer": _STREAMS,
    "vgg_rnn": "its VGG layers subsample 4x once more",
    "transformer_multispkr": "its outputs have several speakers",
    "longformer": "its attention window counts frames of a fixed rate",
    "avhubert": _WAVEFORM,
    "beats": _WAVEFORM,
    "hubert": _WAVEFORM,
    "hubert_pretrain": _WAVEFORM,
    "torchaudiohubert": _WAVEFORM,
    "wav2vec2": _WAVEFORM,
    "whisper": _WAVEFORM,
}
# What ESPnet's models read and write on their encoder; it lives on the inner one.
_FORWARDED = {
    "conditioning_layer",
    "ctc_trim",
    "interctc_layer_idx",
    "interctc_use_conditioning",
}


class OFAEncoder(Adapter, AbsEncoder):
    """Optional stem, compressor, inner encoder.

    ESPnet's encoders subsample by default (``conv2d``: 4x). Here lambda does that, so
    the inner encoder takes units as they are: ``input_layer: linear`` (``subsample`` of
    all ones for ``rnn``), filled in where the config says nothing. One that subsamples,
    or loses units at the edges, is refused.

    Args:
        input_size: width of the frontend's frames; ESPnet gives it.
        encoder: inner encoder, by ESPnet's name.
        encoder_conf: its arguments.
        frame_ms: period of the input frames in ms. By default measured on the config's
            frontend; 8, as of ESPnet's default frontend, where there is no config.
        lam: lambda at evaluation, in [0, 2]; or ``adaptive`` for a learned one.
        lam_train: lambda in training; see :class:`LamPolicy`.
        lam_conf: for ``adaptive``: ``{init, low, high, speed, window, alone}``.
        seed: seed of the draws; by default that of the training.
        compressor: ``cif | mean | conv | squeeze | none``.
        compressor_conf: its arguments.
        target_period_ms: frame period at lambda 1 that alpha starts from.
        stem: stride of a convolutional stem before the compressor, 1, 2 or 4; 0 for
            none. By default 2 for frames of up to 10 ms, 1 (context only) below 20 ms,
            else 0.
        stem_dim: width of the stem's output.
        lam_price: with ``model: ofa`` and ``lam: adaptive``: weight of the expected
            share of frames kept.
        guidance: with ``model: ofa``: weight of the cardinality loss on raw alpha.
        ctc_guard: with ``model: ofa``: lower lambda in training for utterances that
            would have too few units for their labels.
    """

    role = "encoder"

    def __init__(
        self,
        input_size: int,
        encoder: str,
        encoder_conf: dict | None = None,
        frame_ms: float | None = None,
        lam: float | str | None = None,
        lam_train: LamTrain = None,
        lam_conf: dict | None = None,
        seed: int | None = None,
        compressor: str = "cif",
        compressor_conf: dict | None = None,
        target_period_ms: float = 90.0,
        stem: int | None = None,
        stem_dim: int = 256,
        lam_price: float = 0.0,
        guidance: float = 0.0,
        ctc_guard: bool = False,
    ) -> None:
        super().__init__()
        check_neighbours(self.role, lam)
        self.frame_ms = frame_ms = find_frame_ms(self.role, frame_ms)
        if stem is None:
            stem = 2 if frame_ms <= 10 else 1 if frame_ms < 20 else 0
        self.stem, self.compressor, width, rate = build_front(
            input_size,
            frame_ms,
            stem,
            stem_dim,
            compressor,
            compressor_conf,
            target_period_ms,
        )
        self.inner = _build_inner(encoder, width, dict(encoder_conf or {}))
        seed = find_seed(seed)
        self.policy = LamPolicy(lam, lam_train, lam_conf, seed, mean_alpha=rate)
        self._setup(
            self.compressor,
            lam_price,
            guidance,
            ctc_guard,
            keep=[self.compressor, self.policy],
        )

    def __getattr__(self, name: str) -> Any:
        if name in _FORWARDED:
            return getattr(self.inner, name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FORWARDED:
            setattr(self.inner, name, value)
        else:
            super().__setattr__(name, value)

    def output_size(self) -> int:
        """Width of the inner encoder's output."""
        return self.inner.output_size()

    def forward(
        self,
        xs_pad: Tensor,
        ilens: Tensor,
        prev_states: Tensor | None = None,
        ctc: Any = None,
    ) -> tuple[Any, Tensor, Any]:
        """Compress and encode.

        Args:
            xs_pad: (B, S, input_size) frames.
            ilens: (B,) frames that are not padding.
            prev_states: handed to the inner encoder.
            ctc: ESPnet's CTC, where intermediate outputs condition the encoder.

        Returns:
            (B, U, D) output (a tuple with intermediate outputs, if the inner encoder
            has them), (B,) lengths in units, and the inner encoder's states.
        """
        frames, lengths = self.stem(xs_pad, ilens)
        out = self._compress(self.compressor, frames, lengths, ilens)
        if isinstance(self.inner, RNNEncoder):
            return self._run_sorted(out.units, out.lengths, prev_states)
        kwargs = {} if ctc is None else {"ctc": ctc}
        return self.inner(out.units, out.lengths, prev_states, **kwargs)

    def _run_sorted(
        self, units: Tensor, lengths: Tensor, states: Any
    ) -> tuple[Tensor, Tensor, Any]:
        """Longest first, as ESPnet's RNN wants it: units, unlike frames, may not be."""
        order = lengths.argsort(descending=True, stable=True)
        back = order.argsort()
        out, lengths, states = self.inner(
            units[order], lengths[order], _take(states, order)
        )
        return out[back], lengths[back.to(lengths.device)], _take(states, back)


def _take(states: Any, rows: Tensor) -> Any:
    """These rows of states (layers, B, H), however nested."""
    if isinstance(states, (tuple, list)):
        return type(states)(_take(state, rows) for state in states)
    return states if states is None else states[:, rows]


def _build_inner(name: str, input_size: int, conf: dict) -> AbsEncoder:
    """Build ESPnet's encoder ``name`` so that it does not subsample.

    Raises:
        ValueError: an encoder or an input layer that cannot take units, with reason.
    """
    if name in _REFUSED:
        raise ValueError(f"encoder: ofa cannot hold {name}: {_REFUSED[name]}")
    if name not in _INNER:
        raise ValueError(
            f"encoder: ofa: unknown inner encoder {name!r}; choose one of "
            f"{', '.join(_INNER)}"
        )
    if name == "rnn":
        conf.setdefault("subsample", [1] * conf.get("num_layers", 4))
        remedy = "set subsample to ones"
    else:
        conf.setdefault("input_layer", "linear")
        remedy = "set input_layer: linear"
    how = subsampling_of(name, conf)
    if how:
        raise ValueError(
            f"encoder: ofa: {name} with {how} would subsample or shorten what lambda "
            f"has left, and 6 units would be too short; {remedy}"
        )
    module, _, cls = _INNER[name].partition(".")
    inner = getattr(import_module(f"espnet2.asr.encoder.{module}"), cls)
    return inner(input_size=input_size, **conf)
