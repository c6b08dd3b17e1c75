"""The upstream: extractor, compressor and Transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from espnet_ofa.cif import expand
from espnet_ofa.subsampling.choice import Squeeze, SqueezePolicy, as_choices
from espnet_ofa.subsampling.chunks import Chunk, Past, chunks_of_units
from espnet_ofa.subsampling.compressor import (
    CIFCompressor,
    CompressorOutput,
    build_compressor,
)
from espnet_ofa.subsampling.policy import LamPolicy
from espnet_ofa.subsampling.rate import FRAME_MS, Lam, LamRule
from espnet_ofa.subsampling.squeeze import SqueezeCompressor
from espnet_ofa.upstream.attention import Chunked, Padded
from espnet_ofa.upstream.buckets import Bucketed
from espnet_ofa.upstream.condition import RateCondition
from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.extractor import (
    build_extractor,
    frame_lengths,
    normalize_wave,
)
from espnet_ofa.upstream.pooling import Pooling
from espnet_ofa.upstream.transformer import Encoded, Transformer
from espnet_ofa.upstream.upsampler import Upsampler


class UpstreamOutput(NamedTuple):
    """What an upstream returns.

    Attributes:
        hidden_states: ``layers + 1`` tensors (B, U, D), from the embedding upwards. In
            a model whose layers merge units, U is that of the topmost and lower states
            are averages over its units.
        lengths: (B,) units that are not padding.
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
    optimized: str | None = None  # what for, once optimize() has run
    bucketed: Bucketed | None = None  # forward() in CUDA graphs, after optimize()

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
            pos_kernel=config.pos_kernel,
            pos_groups=config.pos_groups,
            norm_first=config.norm_first,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            activation_dropout=config.activation_dropout,
        )
        self._set_up_squeeze()
        self.chunk = Chunk.parse(config.chunk)
        self.set_merge(config.merge)
        self.condition: RateCondition | None = None
        self.set_condition(config.condition)
        if self.chunk is not None:
            self._set_up_chunks(self.chunk.frames)

    def _set_up_squeeze(self) -> None:
        """Who chooses S, q and k, where there is a choice; and the up-sampler."""
        config, compressor = self.config, self.compressor
        queries = as_choices("query_pool", config.query_pool)
        keys = as_choices("key_pool", config.key_pool)
        squeezes = isinstance(compressor, SqueezeCompressor)
        factors = compressor.factors if squeezes else (1,)
        if config.upsampler and not squeezes:
            raise ValueError(
                "upsampler: true needs compressor: squeeze, whose units all cover as "
                f"many frames; got compressor: {config.compressor}"
            )
        self.upsampler = (
            Upsampler(config.dim, max(factors)) if config.upsampler else None
        )
        self._only = Squeeze(factors[0], queries[0], keys[0])
        if max(map(len, (factors, queries, keys))) > 1:
            # A part of the policy: like lambda, a matter of the task, not of weights.
            self.policy.squeeze = SqueezePolicy(factors, queries, keys)
            if squeezes:
                compressor.choose = self.policy.squeeze.factor

    def _set_up_chunks(self, frames: int) -> None:
        """Let nothing look beyond the end of its chunk.

        Raises:
            ValueError: something in the config cannot but do so.
        """
        config, compressor = self.config, self.compressor
        if config.normalize_wave:
            raise ValueError(
                "normalize_wave does not go with chunk: mean and variance of a "
                "waveform are known when it has ended"
            )
        if isinstance(compressor, SqueezeCompressor) or not (
            config.query_pool == config.key_pool == 1
        ):
            raise ValueError(
                "compressor: squeeze, query_pool and key_pool do not go with chunk: "
                "their windows cross its end"
            )
        if frames % getattr(compressor, "factor", 1):
            raise ValueError(
                f"compressor_conf: factor must divide the {frames} frames of a chunk; "
                f"got {compressor.factor}"
            )
        self.extractor.set_chunk(frames)
        if isinstance(compressor, CIFCompressor):
            compressor.predictor.chunk = frames
        if self.transformer.position is not None:
            self.transformer.position.causal = True

    def set_merge(self, merge: dict) -> None:
        """Choose which layers merge adjacent units, and how many; none for ``{}``.

        Merging has no weights, so a model may merge in use what it did not in training.

        Args:
            merge: ``{layers: [...], ratio: ...}``, or ``threshold``.

        Raises:
            ValueError: it does not fit the model.
        """
        pools = self.config.query_pool != 1 or self.config.key_pool != 1
        if merge and (pools or self.upsampler is not None):
            raise ValueError(
                "merge does not go with query_pool, key_pool or upsampler, which count "
                "on units of one length"
            )
        if merge and self.chunk is not None:
            raise ValueError("merge does not go with chunk, since it crosses chunks")
        self.transformer.set_merge(merge)
        if merge != self.config.merge:
            self.config = replace(self.config, merge=merge)

    def set_condition(self, condition: Sequence[str]) -> None:
        """Choose what the Transformer is told of the rate; nothing for ``[]``.

        Until it is trained a new condition has no effect; one that it has is kept.

        Args:
            condition: ``durations``, ``lam`` or both.

        Raises:
            ValueError: something else, or lambda where nothing compresses by it.
        """
        if "lam" in condition and not self.compressor.uses_lam:
            raise ValueError(
                "condition: lam needs compressor: cif; "
                f"{self.config.compressor} has no lambda"
            )
        if "durations" in condition and self.chunk is not None:
            raise ValueError(
                "condition: durations does not go with chunk: how long the last unit "
                "is, is known after it was given out"
            )
        has = [] if self.condition is None else self.condition.kinds
        if set(condition) != set(has):
            self.condition = None
            if condition:
                new = RateCondition(self.config.dim, condition)
                self.condition = new.to(self.project.weight)
        self.config = replace(self.config, condition=list(condition))

    @property
    def squeeze_policy(self) -> SqueezePolicy | None:
        """Who chooses (S, q, k); None where there is one setting."""
        return getattr(self.policy, "squeeze", None)

    def squeeze_now(self) -> Squeeze:
        """The setting (S, q, k) of this batch.

        Raises:
            SqueezeUnsetError: nobody chose one for evaluation.
        """
        return self._only if self.squeeze_policy is None else self.squeeze_policy()

    def output_size(self) -> int:
        """Width of the hidden states."""
        return self.config.dim

    def extract(
        self, wave: Tensor, lengths: Tensor, past: Past | None = None
    ) -> tuple[Tensor, Tensor]:
        """Waveform to frames.

        Args:
            wave: (B, L) samples at 16 kHz.
            lengths: (B,) samples.
            past: of a stream, of which these are the samples of the next chunk.

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
        if self.config.normalize_wave:
            wave = normalize_wave(wave, lengths)
        if self.squeeze_policy is not None:
            self.squeeze_policy.draw()  # a new batch begins
        frames, n_frames = self.extractor(wave, lengths, past)
        return self.norm(frames), n_frames

    def compress(
        self,
        frames: Tensor,
        lengths: Tensor,
        lam: Lam | LamRule | None = None,
        num_units: int | None = None,
    ) -> CompressorOutput:
        """Frames to units; asks the policy for lambda when none is given."""
        if self.compressor.uses_lam:
            lam = self.policy() if lam is None else lam
            out = self.compressor(frames, lengths, lam, num_units)
        else:
            out = self.compressor(frames, lengths, num_units=num_units)
        return self.in_chunks(out, lengths)

    def in_chunks(self, out: CompressorOutput, lengths: Tensor) -> CompressorOutput:
        """Say which chunk each unit is in, where there are chunks."""
        if self.chunk is None:
            return out
        threshold = getattr(self.compressor, "threshold", 1.0)
        chunks = chunks_of_units(out, lengths, threshold, self.chunk.frames)
        return out._replace(chunks=chunks)

    def encode_units(
        self,
        out: CompressorOutput,
        num_layers: int | None = None,
        wait: bool = True,
        scope: Padded | None = None,
    ) -> Encoded:
        """Hidden states at their own units, whose lengths and durations come along.

        Args:
            out: what :meth:`compress` returned (units may have been masked).
            num_layers: run only so many Transformer layers; all by default.
            wait: whether layers that merge by threshold may wait for the device.
            scope: what each unit may see, in a stream; else the config says it.
        """
        return self.transformer(
            self._project(out),
            out.lengths,
            out.durations,
            num_layers,
            wait,
            scope or self._scope(out),
        )

    def _scope(self, out: CompressorOutput) -> Padded | None:
        """What each unit may see; None where that is its whole utterance."""
        if self.chunk is not None:
            assert out.chunks is not None  # compress() says them
            return Chunked(out.chunks, self.chunk.left)
        setting = self.squeeze_now()
        if setting.query == setting.key == 1:
            return None
        size = out.units.shape[1]
        return Pooling(out.lengths, size, setting.query, setting.key)

    def _project(self, out: CompressorOutput) -> Tensor:
        """To the Transformer's width, and its dtype where it has one of its own."""
        units, weight = out.units, self.project.weight
        units = self.project(units.to(weight.dtype) if self.optimized else units)
        if self.condition is None:
            return units
        return self.condition(units, out.durations, out.lam)

    def to_frames(
        self, states: Tensor, durations: Tensor, num_frames: int, waits: bool = False
    ) -> Tensor:
        """Units back to frames: learned where there is an up-sampler, or repeated.

        Args:
            states: (B, U, D) hidden states.
            durations: (B, U) frames that each unit covers.
            num_frames: S.
            waits: the up-sampler learns nothing from this.

        Returns:
            (B, S, D).
        """
        if self.upsampler is None:
            return expand(states, durations, num_frames)
        args = states, self.squeeze_now().factor, num_frames
        if not waits:
            return self.upsampler(*args)
        fixed = {name: p.detach() for name, p in self.upsampler.named_parameters()}
        return functional_call(self.upsampler, fixed, args)

    def predict_frames(
        self, out: CompressorOutput, head: nn.Module, num_frames: int
    ) -> tuple[Tensor, Encoded]:
        """What a head says of every frame, for pre-training.

        Args:
            out: what :meth:`compress` returned (units may have been masked).
            head: on (..., D).
            num_frames: S.

        Returns:
            (B, S, outputs), and the hidden states behind it.
        """
        encoded = self.encode_units(out)
        top, durations = encoded.states[-1], encoded.durations
        if isinstance(head, nn.Linear) and self.upsampler is None:
            # A frame is a blend of units: expanding what a linear head says equals
            # expanding hidden states, for fewer operations.
            return expand(head(top), durations, num_frames), encoded
        return head(self.to_frames(top, durations, num_frames)), encoded

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
        if self.bucketed is not None and self.bucketed.fits(wave, lengths, lam):
            return self.bucketed(wave, lengths, lam, num_layers, num_units)
        frames, n_frames = self.extract(wave, lengths)
        out = self.compress(frames, n_frames, lam, num_units)
        encoded = self.encode_units(out, num_layers, wait=num_units is None)
        return UpstreamOutput(
            encoded.aligned(),
            encoded.lengths,
            encoded.durations,
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

    def optimize(
        self,
        device: str | torch.device | None = None,
        dtype: str = "fp32",
        mode: str = "eager",
    ) -> OFAUpstream:
        """Prepare for inference on a device, in place; returns itself.

        Weight norm is folded into its weights; on CPUs freed memory is kept for reuse
        (a setting of glibc for the whole process). An optimised upstream can neither be
        trained, saved, copied nor moved.

        Args:
            device: where it will run; where it is by default.
            dtype: of the Transformer: ``fp32``; ``bf16``, the weights themselves and
                not autocast; ``int8``, CPUs only. Extractor and compressor stay in
                fp32, so that the units are the same.
            mode: ``eager``; or ``graphs``, CUDA only: audio is padded to buckets of
                length, and each is recorded once as two CUDA graphs, around the wait
                for the number of units. One pair serves every lambda. At most 64 are
                kept, the least recently used one is dropped; a batch of more than 5
                minutes, and a lambda that is a rule, run eagerly. From one stream and
                one thread at a time; autocast around a call has no effect.

        Raises:
            ValueError: unknown dtype or mode, int8 beyond CPUs, graphs beyond CUDA or
                for an upstream whose units are not counted, or optimised before.
        """
        from espnet_ofa.upstream.optimize import optimize

        return optimize(self, device, dtype, mode)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.yaml`` and ``model.safetensors``.

        Raises:
            ValueError: the upstream is optimised for a device.
        """
        if self.optimized is not None:
            raise ValueError(
                f"cannot save an upstream that is optimised for {self.optimized}: "
                "optimise after loading, and save the one that was trained"
            )
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
