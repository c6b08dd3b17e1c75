"""The upstream: extractor, compressor and Transformer."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from espnet_ofa.subsampling.compressor import (
    CIFCompressor,
    CompressorOutput,
    build_compressor,
)
from espnet_ofa.subsampling.rate import FRAME_MS, Lam, LamPolicy, LamRule
from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.extractor import build_extractor, frame_lengths
from espnet_ofa.upstream.transformer import Transformer


class UpstreamOutput(NamedTuple):
    """What an upstream returns.

    Attributes:
        hidden_states: ``layers + 1`` tensors (B, U, D), from the embedding upwards.
        lengths: (B,) units that are not padding, as the compressor made them.
        durations: (B, U) frames of 20 ms that each unit covers.
        frame_lengths: (B,) frames before compression.
        alpha: (B, S) weights before lambda, or None.
        weights: (B, S) weights after lambda, or None.
        merged: (B,) bool, True where ``num_units`` was too small; None where nothing
            can be merged.
    """

    hidden_states: list[Tensor]
    lengths: Tensor
    durations: Tensor
    frame_lengths: Tensor
    alpha: Tensor | None
    weights: Tensor | None
    merged: Tensor | None = None

    @property
    def period_ms(self) -> Tensor:
        """(B,) measured frame period in ms: 20 ms x frames / units."""
        return FRAME_MS * self.frame_lengths / self.lengths


class OFAUpstream(nn.Module):
    """A speech encoder that runs at any frame period.

    Args:
        config: shape of the model.
        policy: which lambda to use when a call names none; undecided by default, so
            that evaluation without a lambda is an error and never a random draw.

    Example:
        >>> up = OFAUpstream.from_pretrained("exp/ofa_base")
        >>> out = up(wave, lengths, lam=0.6)      # wave (B, L) at 16 kHz
        >>> out.hidden_states[-1].shape, out.period_ms
    """

    frame_ms = FRAME_MS

    def __init__(self, config: UpstreamConfig, policy: LamPolicy | None = None) -> None:
        super().__init__()
        self.config = config
        self.policy = policy or LamPolicy()
        self.extractor = build_extractor(config.extractor, **config.extractor_conf)
        width = self.extractor.dim
        self.norm = nn.LayerNorm(width)
        self.compressor = build_compressor(
            config.compressor, width, **config.compressor_conf
        )
        self.policy.used = self.compressor.uses_lam
        self.project = nn.Linear(width, config.dim)
        self.transformer = Transformer(
            config.dim,
            config.layers,
            config.heads,
            config.ff_dim,
            config.pos_kernel,
            config.pos_groups,
            config.norm_first,
            config.dropout,
            config.attention_dropout,
            config.activation_dropout,
        )

    def output_size(self) -> int:
        """Width of the hidden states."""
        return self.config.dim

    def extract(self, wave: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveform to frames.

        Args:
            wave: (B, L) samples at 16 kHz.
            lengths: (B,) samples.

        Returns:
            (B, S, width) frames and (B,) lengths.

        Raises:
            ValueError: shapes disagree.
        """
        if wave.dim() != 2 or lengths.shape != wave.shape[:1]:
            raise ValueError(
                "expected wave (B, samples) and lengths (B,); got "
                f"{tuple(wave.shape)} and {tuple(lengths.shape)}"
            )
        frames, n_frames = self.extractor(wave, lengths)
        return self.norm(frames), n_frames

    def compress(
        self,
        frames: Tensor,
        lengths: Tensor,
        lam: Lam | LamRule | None = None,
        num_units: int | None = None,
    ) -> CompressorOutput:
        """Frames to units; asks the policy for lambda when none is given."""
        if not self.compressor.uses_lam:
            return self.compressor(frames, lengths, num_units=num_units)
        lam = self.policy() if lam is None else lam
        return self.compressor(frames, lengths, lam, num_units)

    def encode(
        self, units: Tensor, lengths: Tensor, num_layers: int | None = None
    ) -> list[Tensor]:
        """(B, U, width) units, (B,) lengths to ``num_layers + 1`` of (B, U, dim)."""
        return self.transformer(self.project(units), lengths, num_layers)

    def forward(
        self,
        wave: Tensor,
        lengths: Tensor | None = None,
        lam: Lam | LamRule | None = None,
        num_layers: int | None = None,
        num_units: int | None = None,
    ) -> UpstreamOutput:
        """Encode.

        Args:
            wave: (B, L) samples at 16 kHz.
            lengths: (B,) samples; whole rows by default.
            lam: number in [0, 2], 0-d or (B,) tensor, or a rule that makes one from
                alpha; the policy's by default.
            num_layers: run only so many Transformer layers; all by default.
            num_units: upper bound on the units of an utterance, so that nothing waits
                for the device; what lies beyond is merged and flagged in ``merged``.

        Raises:
            LamUnsetError: neither the call nor the policy has a lambda.
            ValueError: shapes disagree, or an utterance is empty (with ``num_units``
                nobody looks).
        """
        if lengths is None:
            lengths = wave.new_full(wave.shape[:1], wave.shape[-1], dtype=torch.long)
        frames, n_frames = self.extract(wave, lengths)
        out = self.compress(frames, n_frames, lam, num_units)
        states = self.encode(out.units, out.lengths, num_layers)
        return UpstreamOutput(
            states,
            out.lengths,
            out.durations,
            n_frames,
            out.alpha,
            out.weights,
            out.merged,
        )

    def frame_lengths(self, samples: Tensor) -> Tensor:
        """(B,) samples -> (B,) frames before compression."""
        return frame_lengths(samples)

    def reset_rate(self) -> None:
        """Start the predictor at its target rate again."""
        if isinstance(self.compressor, CIFCompressor):
            self.compressor.predictor.reset_rate()

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.yaml`` and ``model.safetensors``."""
        from espnet_ofa.upstream.checkpoint import save_pretrained

        save_pretrained(self, directory)

    @classmethod
    def from_pretrained(cls, name: str | Path, **kwargs) -> OFAUpstream:
        """Load from a directory or a hub id, in eval mode.

        Args:
            name: directory with ``config.yaml`` and ``model.safetensors``, zip of one,
                or ``"user/model"`` on the Hub. Compared with its ``checksums.json``.
            **kwargs: ``cache_dir``, ``revision``, ``offline`` and ``token`` of
                :func:`espnet_ofa.hub.pull`.
        """
        from espnet_ofa.upstream.checkpoint import from_pretrained

        return from_pretrained(name, **kwargs)
