"""SSL pre-training as an ESPnet task, run by ESPnet's own trainer."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection

import numpy as np
import torch
import yaml
from espnet2.tasks.abs_task import AbsTask
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.train.trainer import Trainer
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import float_or_none, str_or_none

from espnet_ofa.pretrain.model import MaskedPredictionModel
from espnet_ofa.pretrain.segments import check_boundaries
from espnet_ofa.pretrain.targets import check_targets
from espnet_ofa.subsampling.rate import DEFAULT_MEAN_ALPHA, LamPolicy
from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.extractor import HOP, WINDOW, frame_lengths
from espnet_ofa.upstream.model import OFAUpstream


class AlignedCrop:
    """Checks targets and segments against the audio, and crops all three alike.

    Args:
        crop_seconds: longest training example; None keeps whole utterances.
        train: crop at random (validation is cropped from the start).
    """

    def __init__(self, crop_seconds: float | None = None, train: bool = True) -> None:
        self.max_frames = (
            None if crop_seconds is None else max(int(crop_seconds * 1000 // 20), 1)
        )
        self.train = train

    def __call__(self, uid: str, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Check and crop one utterance.

        Raises:
            ValueError: names the utterance whose targets or segments do not fit.
        """
        speech, targets = data["speech"], data["targets"]
        n_frames = frame_lengths(len(speech))
        check_targets(len(targets), n_frames, uid)
        boundaries = data.get("boundaries")
        if boundaries is not None:
            check_boundaries(boundaries, n_frames, uid)
        if self.max_frames is None or n_frames <= self.max_frames:
            return data
        slack = n_frames - self.max_frames
        # numpy's own generator: ESPnet seeds it anew in each worker and epoch.
        first = np.random.randint(slack + 1) if self.train else 0
        last = first + self.max_frames
        data["speech"] = speech[first * HOP : (last - 1) * HOP + WINDOW]
        data["targets"] = targets[first:last]
        if boundaries is not None:
            inner = boundaries[(boundaries > first) & (boundaries < last)]
            data["boundaries"] = np.append(inner, last) - first
        return data


class OFASSLTask(AbsTask):
    """Masked prediction with a lambda that is drawn at each step."""

    num_optimizers = 1
    class_choices_list: list = []
    trainer = Trainer

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
            "--lam",
            type=float_or_none,
            default=None,
            help="Lambda at validation",
        )
        group.add_argument(
            "--lam_train",
            default="uniform_period",
            help="How lambda is drawn at each step: uniform | uniform_period | "
            "extended | a number",
        )
        group.add_argument(
            "--model_conf",
            action=NestedDictAction,
            default={},
            help="Masks and loss weights (espnet_ofa.pretrain.MaskedPredictionModel)",
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
        return AlignedCrop(args.crop_seconds, train)

    @classmethod
    def required_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Speech, and targets in training."""
        return ("speech",) if inference else ("speech", "targets")

    @classmethod
    def optional_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Segments, for guidance."""
        return ("boundaries",)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> MaskedPredictionModel:
        """Model from the options (a config.yaml of training holds them all)."""
        lam_train = args.lam_train
        if isinstance(lam_train, str):  # from the command line
            lam_train = yaml.safe_load(lam_train)
        config = UpstreamConfig.from_dict(args.upstream_conf)
        rate = config.compressor_conf.get("target_rate", DEFAULT_MEAN_ALPHA)
        policy = LamPolicy(args.lam, lam_train, seed=args.seed, mean_alpha=rate)
        upstream = OFAUpstream(config, policy)
        if upstream.compressor.uses_lam and args.lam is None:
            raise ValueError(
                "--lam is not set: validation needs a lambda, e.g. `lam: 0.643` (40 ms)"
            )
        model = MaskedPredictionModel(upstream, args.num_codes, **args.model_conf)
        if args.init is not None:
            from espnet2.torch_utils.initialize import initialize

            initialize(model, args.init)
            upstream.reset_rate()
        return model
