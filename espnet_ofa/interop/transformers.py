"""Upstreams as Hugging Face transformers' models; importing this registers them.

    import espnet_ofa.interop.transformers
    model = AutoModel.from_pretrained("user/model", lam=0.6)

The model's parts, and so the keys of its weights, are those of
:class:`~espnet_ofa.upstream.model.OFAUpstream`. What is downloaded is code of nobody:
``trust_remote_code`` is not needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from espnet_ofa.hub import pull
from espnet_ofa.subsampling.choice import set_squeeze
from espnet_ofa.subsampling.policy import LamPolicy
from espnet_ofa.subsampling.rate import FRAME_MS, Lam, LamTrain
from espnet_ofa.upstream.checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_weights,
    upstream_state,
)
from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.model import OFAUpstream

HF_CONFIG_NAME = "config.json"
_SHAPE = tuple(field.name for field in dataclasses.fields(UpstreamConfig))
# Options that transformers' own loader passes on or takes, which is not used here.
_IGNORED = {
    "_commit_hash",
    "_from_auto",
    "_from_pipeline",
    "adapter_kwargs",
    "code_revision",
    "force_download",
    "low_cpu_mem_usage",
    "proxies",
    "resume_download",
    "trust_remote_code",
    "use_safetensors",
    "weights_only",
}


class OFAConfig(PretrainedConfig):
    """Shape of an upstream, and the lambda it runs at.

    Args:
        lam: lambda at evaluation where a call gives none.
        lam_train: lambda in training; by default the same.
        squeeze: (S, q, k) of a stochastic model, drawn in training.
        **kwargs: fields of :class:`~espnet_ofa.upstream.config.UpstreamConfig`, and
            those that every config of transformers has.
    """

    model_type = "ofa"
    attribute_map = {
        "hidden_size": "dim",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "intermediate_size": "ff_dim",
    }

    def __init__(
        self,
        lam: float | None = None,
        lam_train: LamTrain = None,
        squeeze: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        given = {name: kwargs.pop(name) for name in _SHAPE if name in kwargs}
        for name, value in UpstreamConfig.from_dict(given).to_dict().items():
            setattr(self, name, value)
        self.lam = lam
        self.lam_train = lam_train
        self.squeeze = squeeze
        super().__init__(**kwargs)

    def upstream_config(self) -> UpstreamConfig:
        """The shape alone."""
        shape = {name: getattr(self, name) for name in _SHAPE}
        return UpstreamConfig.from_dict(shape)

    def save_pretrained(self, save_directory: str | Path, *args, **kwargs) -> None:
        """As transformers does, and so that :class:`OFAUpstream` loads it too."""
        super().save_pretrained(save_directory, *args, **kwargs)
        self.upstream_config().to_yaml(Path(save_directory) / CONFIG_NAME)


@dataclass
class OFAModelOutput(ModelOutput):
    """What the model returns.

    Attributes:
        last_hidden_state: (B, U, D) of the last layer.
        hidden_states: ``layers + 1`` of them from the embedding upwards, if asked for.
        lengths: (B,) units that are not padding.
        durations: (B, U) frames of 20 ms that each unit covers.
        frame_lengths: (B,) frames before compression.
    """

    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    lengths: Tensor | None = None
    durations: Tensor | None = None
    frame_lengths: Tensor | None = None

    @property
    def period_ms(self) -> Tensor:
        """(B,) measured frame period in ms."""
        assert self.frame_lengths is not None and self.lengths is not None
        return FRAME_MS * self.frame_lengths / self.lengths


class OFAModel(PreTrainedModel):
    """An :class:`~espnet_ofa.upstream.model.OFAUpstream` that transformers knows.

    Args:
        config: shape; weights are random until they are loaded.
    """

    config_class = OFAConfig
    main_input_name = "input_values"

    def __init__(self, config: OFAConfig) -> None:
        super().__init__(config)
        shape = config.upstream_config()
        policy = LamPolicy(config.lam, config.lam_train, mean_alpha=shape.target_rate)
        upstream = OFAUpstream(shape, policy)
        if config.squeeze is not None:
            set_squeeze(upstream, config.squeeze)
        # Its parts, not the upstream as one part: keys of weights stay what they are.
        mine, theirs = vars(self), vars(upstream)
        for kind in ("_modules", "_parameters", "_buffers"):
            mine[kind].update(theirs[kind])
        mine.update({k: v for k, v in theirs.items() if k not in mine})
        kept = {name for name, _ in upstream_state(upstream)}
        self._keys_to_ignore_on_save = [k for k in self.state_dict() if k not in kept]
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: the parts have initialised themselves."""

    def _upstream(self) -> OFAUpstream:
        """An upstream that *is* this model: both share one set of attributes."""
        upstream = OFAUpstream.__new__(OFAUpstream)
        upstream.__dict__ = self.__dict__
        return upstream

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        lam: Lam | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> OFAModelOutput | tuple:
        """Encode.

        Args:
            input_values: (B, L) samples at 16 kHz.
            attention_mask: (B, L), 1 where a sample is not padding, which stands on
                the right; whole rows by default.
            lam: number in [0, 2], 0-d or (B,) tensor; the config's by default, or what
                ``espnet_ofa.set_lam`` has set.
            output_hidden_states: return every layer; the config's by default.
            return_dict: False for a tuple; the config's by default.

        Raises:
            LamUnsetError: nobody chose a lambda.
            ValueError: shapes disagree, padding is not on the right, or an utterance
                is empty.
        """
        lengths = None
        if attention_mask is not None:
            mask = attention_mask.bool()
            if mask.shape != input_values.shape or (mask[:, 1:] & ~mask[:, :-1]).any():
                raise ValueError(
                    "attention_mask: expected the shape of input_values "
                    f"{tuple(input_values.shape)} and padding on the right; found "
                    f"{tuple(mask.shape)} with {int(mask.sum())} samples that are not "
                    "padding. Pad with padding_side='right'"
                )
            lengths = mask.sum(1)
        out = self._upstream().forward(input_values, lengths, lam)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        result = OFAModelOutput(
            last_hidden_state=out.hidden_states[-1],
            hidden_states=tuple(out.hidden_states) if output_hidden_states else None,
            lengths=out.lengths,
            durations=out.durations,
            frame_lengths=out.frame_lengths,
        )
        as_tuple = (
            self.config.return_dict if return_dict is None else return_dict
        ) is False
        return result.to_tuple() if as_tuple else result

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: OFAConfig | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        subfolder: str = "",
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        **kwargs: Any,
    ) -> OFAModel:
        """Load in eval mode, compared with ``checksums.json``; every key must fit.

        Args:
            pretrained_model_name_or_path: directory, zip or hub id of an upstream that
                was packed, or that ``save_pretrained`` left.
            config: instead of the one beside the weights.
            revision: branch, tag or commit of a hub id.
            cache_dir, token, local_files_only: see :func:`espnet_ofa.hub.pull`.
            subfolder: must be empty.
            dtype: of the weights; fp32 by default.
            torch_dtype: the older name of ``dtype``.
            **kwargs: replace values of the config (``lam=0.6``).

        Raises:
            FileNotFoundError, PermissionError, ConnectionError, OSError: see ``pull``.
            ValueError: an altered file, weights that do not fit, unknown options.
        """
        kwargs = {k: v for k, v in kwargs.items() if k not in _IGNORED}
        folder = pull(
            pretrained_model_name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            offline=local_files_only or None,
            only=[HF_CONFIG_NAME, CONFIG_NAME, WEIGHTS_NAME],
        )
        if config is None:
            config, kwargs = _read_config(folder, kwargs)
        else:
            for name in [name for name in kwargs if hasattr(config, name)]:
                setattr(config, name, kwargs.pop(name))
        if kwargs or subfolder:
            raise ValueError(
                f"{pretrained_model_name_or_path}: unknown options "
                f"{', '.join([*kwargs, *(['subfolder'] if subfolder else [])])}; "
                "expected those of OFAConfig, dtype, and what finds the files. Move or "
                "convert the model once it is loaded"
            )
        model = cls(config)
        load_weights(model._upstream(), folder)
        dtype = dtype or torch_dtype
        if dtype == "auto":  # transformers 4 calls it torch_dtype
            dtype = getattr(config, "dtype", None) or config.torch_dtype
        if dtype is not None:
            kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
            model.to(kind)  # type: ignore[arg-type]
        model.name_or_path = str(pretrained_model_name_or_path)
        return model.eval()


def _read_config(folder: Path, options: dict[str, Any]) -> tuple[OFAConfig, dict]:
    """Config of a folder with options replaced, and the options it does not know."""
    if (folder / HF_CONFIG_NAME).is_file():
        options = {**options, "return_unused_kwargs": True}
        return OFAConfig.from_pretrained(folder, **options)  # type: ignore[return-value]
    if not (folder / CONFIG_NAME).is_file():
        raise FileNotFoundError(
            f"{folder}: expected {HF_CONFIG_NAME} or {CONFIG_NAME} of an upstream, "
            f"found {sorted(p.name for p in folder.iterdir())[:10]}"
        )
    config = OFAConfig(**UpstreamConfig.from_yaml(folder / CONFIG_NAME).to_dict())
    for name in [name for name in options if hasattr(config, name)]:
        setattr(config, name, options.pop(name))
    return config, options


AutoConfig.register(OFAConfig.model_type, OFAConfig, exist_ok=True)
AutoModel.register(OFAConfig, OFAModel, exist_ok=True)
