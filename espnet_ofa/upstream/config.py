"""Shape of an upstream, and its YAML form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from espnet_ofa.subsampling.rate import DEFAULT_MEAN_ALPHA


def _is_of(kind: Any, value: object) -> bool:
    """Whether a value out of YAML or JSON is of a field's type."""
    if isinstance(kind, UnionType):
        return any(_is_of(one, value) for one in get_args(kind))
    if get_origin(kind) is list:
        (of,) = get_args(kind)
        return isinstance(value, list | tuple) and all(_is_of(of, v) for v in value)
    if isinstance(value, bool):  # an int to Python
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


@dataclass
class UpstreamConfig:
    """Everything needed to build an :class:`~espnet_ofa.upstream.model.OFAUpstream`.

    The defaults are HuBERT base with CIF. Widths are channels, kernels are frames or
    units.

    Attributes:
        extractor: ``conv`` (HuBERT's seven layers), ``slim`` (SEW's) or ``logmel``.
        extractor_conf: arguments of the extractor.
        normalize_wave: remove mean and variance of each waveform first, as models with
            layer norm in the extractor were trained (HuBERT large).
        compressor: ``none | mean | conv | cif | squeeze``.
        compressor_conf: arguments of the compressor.
        dim: width of the Transformer.
        layers: Transformer layers.
        heads: attention heads.
        ff_dim: width of the feed-forward layers.
        pos_kernel: kernel of the convolutional position embedding, in units; 0 for
            none, behind a squeeze, which has one.
        pos_groups: its groups.
        norm_first: layer norm before each block (HuBERT large) or after (base).
        dropout: dropout of embeddings and residual branches.
        attention_dropout: dropout of attention weights.
        activation_dropout: dropout inside the feed-forward layers.
        query_pool: units that share an attention query; several to choose from make the
            model stochastic, as several factors of a squeeze do.
        key_pool: units that are averaged into one key and value; likewise.
        merge: ``{layers: [...], ratio: ...}``, or ``threshold``: layers that merge
            adjacent units; none by default.
        upsampler: learn to turn units back into frames for pre-training (SEW), instead
            of repeating them for their durations; with a squeeze only.
        chunk: ``{ms: ..., left: ...}``: let nothing look beyond the end of its stretch
            of so many ms, and units not further back than ``left`` stretches, so that
            the model can run on a stream; no limits by default.
        condition: what the Transformer is told of the rate: ``durations`` of the units,
            ``lam``, or both; nothing by default.
    """

    extractor: str = "conv"
    extractor_conf: dict = field(default_factory=dict)
    normalize_wave: bool = False
    compressor: str = "cif"
    compressor_conf: dict = field(default_factory=dict)
    dim: int = 768
    layers: int = 12
    heads: int = 12
    ff_dim: int = 3072
    pos_kernel: int = 128
    pos_groups: int = 16
    norm_first: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    query_pool: int | list[int] = 1
    key_pool: int | list[int] = 1
    merge: dict = field(default_factory=dict)
    upsampler: bool = False
    chunk: dict = field(default_factory=dict)
    condition: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: dict) -> UpstreamConfig:
        """Build from a mapping.

        Raises:
            ValueError: a key that no upstream has, or a value of another kind, by name.
        """
        kinds = get_type_hints(cls)
        unknown = sorted(str(name) for name in set(values) - set(kinds))
        if unknown:
            raise ValueError(
                f"unknown keys in upstream config: {', '.join(unknown)}; known are "
                f"{', '.join(sorted(kinds))}"
            )
        for name, value in values.items():
            if not _is_of(kinds[name], value):
                kind = kinds[name]
                expected = kind.__name__ if isinstance(kind, type) else kind
                found = "nothing" if value is None else f"{value!r}"
                raise ValueError(
                    f"{name} in upstream config: expected {expected}, found {found}"
                )
        return cls(**values)

    @property
    def target_rate(self) -> float:
        """Units per frame that alpha is trained for at lambda 1."""
        return self.compressor_conf.get("target_rate", DEFAULT_MEAN_ALPHA)

    def to_dict(self) -> dict:
        """The mapping that :meth:`from_dict` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_yaml(cls, path: str | Path) -> UpstreamConfig:
        """Read ``config.yaml``.

        Raises:
            ValueError: the file is not YAML, or not of an upstream.
        """
        with open(path, encoding="utf-8") as f:
            try:
                values = yaml.safe_load(f)
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                why = " ".join(str(error).split())
                raise ValueError(f"{path}: expected YAML: {why}") from error
        if not isinstance(values, dict):
            raise ValueError(
                f"{path}: expected a mapping of upstream options, found "
                f"{type(values).__name__}"
            )
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def to_yaml(self, path: str | Path) -> None:
        """Write ``config.yaml``."""
        with open(path, "w", encoding="utf-8") as f:
            yaml.safe_dump(self.to_dict(), f, sort_keys=False)
