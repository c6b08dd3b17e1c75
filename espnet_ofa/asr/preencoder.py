"""``preencoder: ofa``: a compressor behind any ESPnet frontend."""

from __future__ import annotations

from espnet2.asr.preencoder.abs_preencoder import AbsPreEncoder
from torch import Tensor

from espnet_ofa.asr.adapter import Adapter
from espnet_ofa.asr.building import check_neighbours, find_frame_ms, find_seed
from espnet_ofa.asr.stem import build_front
from espnet_ofa.subsampling import LamPolicy
from espnet_ofa.subsampling.rate import LamTrain


class OFAPreEncoder(Adapter, AbsPreEncoder):
    """Compresses the frontend's frames: log-mel, s3prl, espnet_ssl or any other.

    The encoder behind it must not subsample again (``input_layer: linear``).

    Args:
        input_size: width of the frames; ESPnet does not tell it to a preencoder.
        frame_ms: their period in ms. By default measured on the config's frontend; 8,
            as of ESPnet's default frontend, where there is no config.
        lam: lambda at evaluation, in [0, 2]; or ``adaptive`` for a learned one.
        lam_train: lambda in training; see :class:`LamPolicy`.
        lam_conf: for ``adaptive``: ``{init, low, high, speed, window, alone}``.
        seed: seed of the draws; by default that of the training.
        compressor: ``cif | mean | conv | squeeze | none``.
        compressor_conf: its arguments.
        target_period_ms: frame period at lambda 1 that alpha starts from.
        stem: stride of a convolutional stem before the compressor, 1, 2 or 4; 0 for
            none, the default: frames pass unchanged at lambda 0.
        stem_dim: width of the stem's output.
        lam_price: with ``model: ofa`` and ``lam: adaptive``: weight of the expected
            share of frames kept.
        guidance: with ``model: ofa``: weight of the cardinality loss on raw alpha.
        ctc_guard: with ``model: ofa``: lower lambda in training for utterances that
            would have too few units for their labels.
    """

    role = "preencoder"

    def __init__(
        self,
        input_size: int,
        frame_ms: float | None = None,
        lam: float | str | None = None,
        lam_train: LamTrain = None,
        lam_conf: dict | None = None,
        seed: int | None = None,
        compressor: str = "cif",
        compressor_conf: dict | None = None,
        target_period_ms: float = 90.0,
        stem: int = 0,
        stem_dim: int = 256,
        lam_price: float = 0.0,
        guidance: float = 0.0,
        ctc_guard: bool = False,
    ) -> None:
        super().__init__()
        check_neighbours(self.role, lam)
        self.frame_ms = frame_ms = find_frame_ms(self.role, frame_ms)
        self.stem, self.compressor, self._output_size, rate = build_front(
            input_size,
            frame_ms,
            stem,
            stem_dim,
            compressor,
            compressor_conf,
            target_period_ms,
        )
        seed = find_seed(seed)
        self.policy = LamPolicy(lam, lam_train, lam_conf, seed, mean_alpha=rate)
        self._setup(
            self.compressor,
            lam_price,
            guidance,
            ctc_guard,
            keep=[self.compressor, self.policy],
        )

    def output_size(self) -> int:
        """Width of the units."""
        return self._output_size

    def forward(self, input: Tensor, input_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compress.

        Args:
            input: (B, S, input_size) frames.
            input_lengths: (B,) frames that are not padding.

        Returns:
            (B, U, D) units and their (B,) lengths.
        """
        frames, lengths = self.stem(input, input_lengths)
        out = self._compress(self.compressor, frames, lengths, input_lengths)
        return out.units, out.lengths
