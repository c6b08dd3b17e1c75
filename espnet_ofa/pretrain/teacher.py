"""Teachers: frozen encoders that give hidden states every 20 ms, over true lengths."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from espnet_ofa.cif import expand
from espnet_ofa.pretrain.cache import CacheFacts
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.upstream.checkpoint import load_upstream
from espnet_ofa.upstream.importers import Source, build, find_source, read_source
from espnet_ofa.upstream.importers.espnet import is_ssl_task
from espnet_ofa.upstream.importers.source import complain
from espnet_ofa.upstream.model import OFAUpstream

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def precision(dtype: str) -> torch.dtype:
    """A teacher's precision by name.

    Raises:
        ValueError: unknown name.
    """
    if dtype not in DTYPES:
        raise ValueError(
            f"a teacher's dtype must be {' or '.join(DTYPES)}; got {dtype!r}"
        )
    return DTYPES[dtype]


class Teacher(nn.Module):
    """A frozen encoder: no gradients, always in eval mode, at its own precision.

    Args:
        name: where it is from, for messages.
        dim: width of the hidden states.
        depth: its layers.
        front: our extractor, projection and positional convolution with its weights,
            where its own are like ours.
    """

    def __init__(
        self, name: str, dim: int, depth: int, front: OFAUpstream | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.dim = dim
        self.depth = depth
        self.front = front

    @property
    def upstream(self) -> OFAUpstream | None:
        """The whole of it as one of ours, where its architecture is ours."""
        return None

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode, whatever the model around it does."""
        return super().train(False)

    def to_precision(self, dtype: str) -> Teacher:
        """Go on in the precision of that name.

        Raises:
            ValueError: unknown name, or not one for this teacher.
        """
        return self.to(precision(dtype))

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raise a ValueError unless it has these layers; 0 is the embedding."""
        missing = [x for x in layers if not 0 <= x <= self.depth]
        if missing or not layers:
            raise ValueError(
                f"{self.name}: expected layers from 0 (the embedding) to {self.depth}, "
                f"found {list(layers)}"
            )

    def settings(self) -> dict:
        """What the hidden states depend on beside the weights, such as heads."""
        if self.front is None:
            return {}
        config = self.front.config.to_dict()
        # Those of training only.
        config["compressor_conf"].pop("target_rate", None)
        return {k: v for k, v in config.items() if not k.endswith("dropout")}

    def fingerprint(self) -> str:
        """Hex digest of the weights as they are used, precision and settings."""
        settings = json.dumps(self.settings(), sort_keys=True)
        digest = hashlib.sha256(settings.encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(memoryview(raw.numpy()))
        return digest.hexdigest()

    def cache_facts(self, layers: Sequence[int], dtype: str = "float16") -> CacheFacts:
        """What a cache of these layers says of itself."""
        self.check_layers(layers)
        return CacheFacts(self.name, self.fingerprint(), tuple(layers), self.dim, dtype)

    @torch.no_grad()
    def forward(
        self, wave: Tensor, lengths: Tensor, layers: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Hidden states of some layers.

        Args:
            wave: (B, L) samples at 16 kHz, anything beyond ``lengths``.
            lengths: (B,) samples.
            layers: which ones; 0 is the embedding, 1 the output of the first layer. The
                topmost is the model's output.

        Returns:
            (B, S, layers, D) in the teacher's precision, one row a frame of 20 ms, and
            (B,) frames. Rows beyond those hold nothing of use.

        Raises:
            ValueError: it has no such layer.
        """
        self.check_layers(layers)
        with torch.autocast(wave.device.type, enabled=False):
            states, n_frames = self._states(wave, lengths, max(layers))
        return torch.stack([states[x] for x in layers], 2), n_frames

    def _states(
        self, wave: Tensor, lengths: Tensor, depth: int
    ) -> tuple[list[Tensor], Tensor]:
        """``depth + 1`` tensors (B, S, D) and (B,) frames."""
        raise NotImplementedError


class UpstreamTeacher(Teacher):
    """A teacher that is one of our upstreams.

    Where it can choose it runs at its finest: at lambda 0, or at the least squeeze and
    pooling. A state of a unit stands for all of its frames.
    """

    def __init__(self, name: str, upstream: OFAUpstream) -> None:
        config = upstream.config
        super().__init__(name, config.dim, config.layers, upstream)
        if upstream.squeeze_policy is not None:
            upstream.squeeze_policy.set([*map(min, upstream.squeeze_policy.choices)])

    @property
    def upstream(self) -> OFAUpstream | None:
        """The whole of it."""
        return self.front

    def _states(self, wave, lengths, depth):
        front = self.front
        assert front is not None
        out = front(wave, lengths, lam=0.0, num_layers=depth)
        states, config = out.hidden_states, front.config
        at_frames = config.compressor == "none" or (
            front.compressor.uses_lam and front.compressor.threshold == 1
        )
        if config.merge or not at_frames:
            size = int(front.frame_lengths(torch.tensor([wave.shape[1]])))
            states = [expand(x, out.durations, size) for x in states]
        return states, out.frame_lengths


class WavLMTeacher(Teacher):
    """WavLM: our extractor, and the layers of ``transformers``.

    Its attention has a gated relative position bias (Chen et al., 2022).
    """

    def __init__(self, name: str, source: Source) -> None:
        try:
            from transformers.models.wavlm import WavLMConfig
            from transformers.models.wavlm.modeling_wavlm import (
                WavLMEncoder,
                WavLMEncoderStableLayerNorm,
            )
        except ImportError as e:
            raise ImportError(
                f"{name} is a WavLM, whose layers come from transformers: pip install "
                "'espnet-ofa[transformers]'"
            ) from e
        assert source.relative is not None
        conf, weights = source.relative
        depth, source.config.layers = source.config.layers, 0
        front = OFAUpstream(source.config)
        load_upstream(front, source.state, source.origin)
        super().__init__(name, front.output_size(), depth, front)
        kind: Any = WavLMEncoder
        if source.config.norm_first:
            kind = WavLMEncoderStableLayerNorm
        self.conf = conf
        self.layers = kind(WavLMConfig(**conf)).layers
        own = self.layers.state_dict()
        complain(
            source.origin,
            [f"encoder.layers.{x}" for x in sorted(set(own) - set(weights))],
            [f"encoder.layers.{x}" for x in sorted(set(weights) - set(own))],
            [
                f"encoder.layers.{x} (expected {tuple(own[x].shape)}, found "
                f"{tuple(weights[x].shape)})"
                for x in sorted(set(own) & set(weights))
                if own[x].shape != weights[x].shape
            ],
        )
        self.layers.load_state_dict(weights)

    def settings(self) -> dict:
        """Those of the front and of the layers."""
        return super().settings() | {"wavlm": self.conf}

    def _states(self, wave, lengths, depth):
        front = self.front
        assert front is not None
        norm_first = front.config.norm_first
        frames, n_frames = front.extract(wave, lengths)
        transformer = front.transformer
        assert transformer.position is not None
        x = transformer.position(front.project(frames), n_frames)
        x = x if norm_first else transformer.norm(x)
        mask = valid_mask(n_frames, x.shape[1])
        states, bias = [x], None
        for layer in list(self.layers)[:depth]:
            x, bias = layer(x, attention_mask=mask, position_bias=bias)[:2]
            states.append(x)
        if norm_first and depth == self.depth:
            states[-1] = transformer.norm(x)
        return states, n_frames


def load_configured(name: str | Path, conf: dict) -> Teacher:
    """A teacher by the ``teacher_conf`` of a training: ``dtype``, hints, ``init``.

    Raises:
        FileNotFoundError, ValueError, ImportError: see :func:`load_teacher`.
    """
    hints = {key: value for key, value in conf.items() if key not in ("init", "dtype")}
    return load_teacher(name, conf.get("dtype", "float32"), hints)


def load_teacher(
    name: str | Path, dtype: str = "float32", hints: dict | None = None
) -> Teacher:
    """A teacher from any encoder that :mod:`espnet_ofa.upstream.importers` reads.

    ESPnet's SSL task is another one: it stays in ESPnet's code.

    Args:
        name: folder, file or hub id.
        dtype: ``float32`` or ``bfloat16``, of its weights and its arithmetic.
        hints: see :func:`espnet_ofa.upstream.importers.read_source`; none for ESPnet's
            SSL task.

    Raises:
        FileNotFoundError, ValueError: nothing there that is known, or it does not fit;
            hints or a precision that ESPnet's SSL task does not take.
        ImportError: WavLM without ``transformers``.
    """
    precision(dtype)
    path = find_source(name)
    if is_ssl_task(path):
        if hints:
            raise ValueError(
                f"{name}: expected no hints, found {', '.join(sorted(hints))}: the "
                "config.yaml beside it says all of ESPnet's SSL task; take them out of "
                "teacher_conf"
            )
        from espnet_ofa.pretrain.espnet_teacher import ESPnetTeacher

        teacher: Teacher = ESPnetTeacher(str(name), path)
        return teacher.requires_grad_(False).eval().to_precision(dtype)
    source = read_source(path, **(hints or {}))
    if source.relative is not None:
        teacher = WavLMTeacher(str(name), source)
    else:
        teacher = UpstreamTeacher(str(name), build(source))
    return teacher.requires_grad_(False).eval().to_precision(dtype)
