"""SSL pre-training as an ESPnet task, run by ESPnet's own trainer."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Collection

import numpy as np
import torch
import yaml
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import float_or_none, str_or_none

from espnet_ofa.pretrain.cache import CacheFacts, CacheReader
from espnet_ofa.pretrain.distill import LAYERS, DistillationModel, start_from_teacher
from espnet_ofa.pretrain.model import MaskedPredictionModel
from espnet_ofa.pretrain.segments import check_boundaries
from espnet_ofa.pretrain.targets import check_targets
from espnet_ofa.pretrain.teacher import Teacher, load_configured
from espnet_ofa.subsampling.policy import LamPolicy
from espnet_ofa.subsampling.rate import FRAME_MS
from espnet_ofa.tasks.audio import AudioTask
from espnet_ofa.tasks.trainer import FiniteTrainer
from espnet_ofa.upstream.checkpoint import load_upstream, upstream_state
from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.extractor import HOP, WINDOW, frame_lengths
from espnet_ofa.upstream.importers import load_any
from espnet_ofa.upstream.model import OFAUpstream


class AlignedCrop:
    """Checks targets and segments against the audio, and crops all of them alike.

    Args:
        crop_seconds: longest training example; None keeps whole utterances.
        train: crop at random (validation is cropped from the start).
        cache: reads a teacher's hidden states, where there are any.
    """

    def __init__(
        self,
        crop_seconds: float | None = None,
        train: bool = True,
        cache: CacheReader | None = None,
    ) -> None:
        self.max_frames = None
        if crop_seconds is not None:
            self.max_frames = max(int(crop_seconds * 1000 // FRAME_MS), 1)
        self.train = train
        self.cache = cache

    def __call__(self, uid: str, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Check and crop one utterance; ``teacher``, a shard's path, becomes frames.

        Raises:
            ValueError: names the utterance whose targets, segments or hidden states do
                not fit.
        """
        n_frames = frame_lengths(len(data["speech"]))
        if "targets" in data:
            check_targets(len(data["targets"]), n_frames, uid)
        if "boundaries" in data:
            check_boundaries(data["boundaries"], n_frames, uid)
        shard = data.get("teacher")
        if shard is not None:
            assert self.cache is not None
            check_targets(self.cache.frames(str(shard), uid), n_frames, uid)

        first, last = 0, n_frames
        if self.max_frames is not None and n_frames > self.max_frames:
            slack = n_frames - self.max_frames
            # numpy's own generator: ESPnet seeds it anew in each worker and epoch.
            first = np.random.randint(slack + 1) if self.train else 0
            last = first + self.max_frames
            self._crop(data, first, last)
        if shard is not None and self.cache is not None:
            data["teacher"] = self.cache.read(str(shard), uid, first, last).numpy()
        return data

    @staticmethod
    def _crop(data: dict[str, np.ndarray], first: int, last: int) -> None:
        """Keep frames first to last - 1 of all but the teacher's."""
        data["speech"] = data["speech"][first * HOP : (last - 1) * HOP + WINDOW]
        if "targets" in data:
            data["targets"] = data["targets"][first:last]
        if "boundaries" in data:
            ends = data["boundaries"]
            inner = ends[(ends > first) & (ends < last)]
            data["boundaries"] = np.append(inner, last) - first


class OFASSLTask(AudioTask):
    """Masked prediction or distillation, with a lambda that is drawn at each step."""

    num_optimizers = 1
    class_choices_list: list = []
    trainer = FiniteTrainer

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Options beyond those of every ESPnet task."""
        group = parser.add_argument_group(description="Task related")
        group.add_argument(
            "--init",
            type=lambda x: str_or_none(x.lower()),
            default=None,
            choices=[
                "chainer",
                "xavier_uniform",
                "xavier_normal",
                "kaiming_uniform",
                "kaiming_normal",
                "normal",
                None,
            ],
            help="The initialization method",
        )
        group.add_argument(
            "--model",
            default="masked",
            choices=["masked", "distill"],
            help="Predict k-means codes of masked frames, or a teacher's hidden states",
        )
        group.add_argument(
            "--num_codes",
            type=int,
            default=100,
            help="Number of k-means codes in the targets",
        )
        group.add_argument(
            "--upstream_conf",
            action=NestedDictAction,
            default={},
            help="Shape of the upstream (espnet_ofa.upstream.UpstreamConfig)",
        )
        group.add_argument(
            "--upstream",
            type=str_or_none,
            default=None,
            help="Go on from this encoder: folder, file or hub id; --upstream_conf "
            "then holds what differs from it, e.g. compressor: cif",
        )
        group.add_argument(
            "--teacher",
            type=str_or_none,
            default=None,
            help="Teacher of distillation: folder, file or hub id",
        )
        group.add_argument(
            "--teacher_conf",
            action=NestedDictAction,
            default={},
            help="init (layers | front | none: what the student copies), dtype "
            "(float32 | bfloat16), and hints for encoders without a configuration",
        )
        group.add_argument(
            "--lam",
            type=float_or_none,
            default=None,
            help="Lambda at validation",
        )
        group.add_argument(
            "--lam_train",
            default="uniform_period",
            help="How lambda is drawn at each step: uniform | ends | "
            "log_period | uniform_period | ends_period | extended | "
            "a number",
        )
        group.add_argument(
            "--squeeze",
            type=str_or_none,
            default=None,
            help="S,q,k at validation, for a stochastic upstream; in training they are "
            "drawn at each step",
        )
        group.add_argument(
            "--model_conf",
            action=NestedDictAction,
            default={},
            help="Masks, layers and loss weights: arguments of MaskedPredictionModel "
            "or DistillationModel",
        )
        group.add_argument(
            "--crop_seconds",
            type=float_or_none,
            default=None,
            help="Crop longer utterances, together with targets and segments",
        )

    @classmethod
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[
        [Collection[tuple[str, dict[str, np.ndarray]]]],
        tuple[list[str], dict[str, torch.Tensor]],
    ]:
        """Zero-pad audio, pad codes and segments with -1."""
        return CommonCollateFn(float_pad_value=0.0, int_pad_value=-1)

    @classmethod
    def build_preprocess_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]] | None:
        """Alignment checks and crops."""
        cache = None
        if "teacher" in _data_names(args):
            cache = CacheReader(cls._cache_facts(args))
        return AlignedCrop(args.crop_seconds, train, cache)

    @classmethod
    def required_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Speech; what else is needed depends on the model."""
        return ("speech",)

    @classmethod
    def optional_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Codes, a teacher's hidden states (shards by ``text``), segments."""
        return ("targets", "teacher", "boundaries")

    @classmethod
    def build_model(
        cls, args: argparse.Namespace
    ) -> MaskedPredictionModel | DistillationModel:
        """Model from the options (a config.yaml of training holds them all).

        Raises:
            ValueError: options, data and teacher do not go together.
        """
        names = _data_names(args)
        if args.model == "masked" and names and "targets" not in names:
            raise ValueError(
                f"model: masked needs targets, the data have {sorted(names)} only"
            )
        lam_train = args.lam_train
        if isinstance(lam_train, str):  # from the command line
            lam_train = yaml.safe_load(lam_train)
        start = None
        if args.upstream is not None:
            start = load_any(args.upstream, args.upstream_conf)
            # What config.yaml keeps must build the model without the encoder.
            args.upstream_conf, args.upstream = start.config.to_dict(), None
        config = UpstreamConfig.from_dict(args.upstream_conf)
        rate = config.target_rate
        policy = LamPolicy(args.lam, lam_train, seed=args.seed, mean_alpha=rate)
        upstream = OFAUpstream(config, policy)
        if upstream.compressor.uses_lam and args.lam is None:
            raise ValueError(
                "--lam is not set: validation needs a lambda, e.g. `lam: 0.643` (40 ms)"
            )
        if upstream.squeeze_policy is not None:
            if args.squeeze is None:
                raise ValueError(
                    "--squeeze is not set: validation needs a setting, e.g. "
                    "`squeeze: 2,1,1`"
                )
            upstream.squeeze_policy.choose(args.squeeze, "uniform", args.seed)
        teacher = None
        if args.model == "distill":
            conf = {**args.teacher_conf, "dtype": "float32"}
            teacher = _load_teacher(args.teacher, conf)
            kept = None if "teacher" in names else teacher
            model = DistillationModel(upstream, teacher.dim, kept, **args.model_conf)
            teacher.check_layers(model.layers)
        else:
            model = MaskedPredictionModel(upstream, args.num_codes, **args.model_conf)
        if args.init is not None:
            from espnet2.torch_utils.initialize import initialize

            initialize(model, args.init)
            upstream.reset_rate()
        if start is not None:
            load_upstream(upstream, dict(upstream_state(start)), "--upstream")
        elif teacher is not None:
            what = args.teacher_conf.get("init", "layers")
            start_from_teacher(upstream, teacher, what)
        if teacher is not None:  # the student has copied the weights unrounded
            teacher.to_precision(args.teacher_conf.get("dtype", "float32"))
        return model

    @classmethod
    def _cache_facts(cls, args: argparse.Namespace) -> CacheFacts:
        """What a cache must hold for these options."""
        conf = tuple(sorted(args.teacher_conf.items()))
        return _cache_facts(
            args.teacher, conf, tuple(args.model_conf.get("layers", LAYERS))
        )


@functools.lru_cache(maxsize=1)  # training and validation ask alike
def _cache_facts(name: str | None, conf: tuple, layers: tuple[int, ...]) -> CacheFacts:
    return _load_teacher(name, dict(conf)).cache_facts(layers)


def _load_teacher(name: str | None, conf: dict) -> Teacher:
    if name is None:
        raise ValueError("model: distill needs --teacher (folder, file or hub id)")
    return load_configured(name, conf)


def _data_names(args: argparse.Namespace) -> set[str]:
    """Names of the fields of the training data; empty where none are given."""
    return {name for _, name, _ in args.train_data_path_and_name_and_type}
