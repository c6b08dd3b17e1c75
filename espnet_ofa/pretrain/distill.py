"""Distillation from a teacher's hidden states, the setting of the ICASSP 2023 paper.

DistilHuBERT's objective (Chang et al., 2022) on an encoder that sees units: heads
predict chosen layers of the teacher at 20 ms, from units expanded by durations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.pretrain.guided import GuidedModel
from espnet_ofa.pretrain.teacher import Teacher
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.subsampling.rate import FRAME_MS
from espnet_ofa.upstream.importers import POSITION
from espnet_ofa.upstream.model import OFAUpstream

LAYERS = (4, 8, 12)  # of HuBERT base, as in DistilHuBERT


def distillation_losses(
    predictions: Tensor, targets: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """L1 and cosine losses, each averaged over true frames and over layers.

    Args:
        predictions: (B, S, layers, D).
        targets: (B, S, layers, D), any precision; anything on padding.
        lengths: (B,) frames.

    Returns:
        0-d L1 loss (mean over D), 0-d loss -log sigmoid(cosine), and (layers,) mean
        cosine.
    """
    mask = valid_mask(lengths, predictions.shape[1])[..., None]  # (B, S, 1)
    x = predictions.float()
    y = torch.where(mask[..., None], targets.float(), 0.0)  # padding may hold NaN
    count = mask.sum().clamp(min=1)
    l1 = ((x - y).abs().mean(-1) * mask).sum((0, 1)) / count
    cosine = F.cosine_similarity(x, y, dim=-1)
    similarity = (-F.logsigmoid(cosine) * mask).sum((0, 1)) / count
    return l1.mean(), similarity.mean(), (cosine * mask).sum((0, 1)).detach() / count


class MLPHeads(nn.ModuleList):
    """DistilHuBERT's heads: for each layer a linear one, GELU and another linear one.

    Args:
        dim: width of the student, and of what is between the two.
        teacher_dim: width of the teacher.
        layers: how many heads.
    """

    def __init__(self, dim: int, teacher_dim: int, layers: int) -> None:
        super().__init__(
            nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, teacher_dim))
            for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, layers * teacher_dim)."""
        return torch.cat([head(x) for head in self], -1)


class DistillationModel(GuidedModel):
    """SSL model: an upstream and one head for each layer of a teacher.

    Args:
        upstream: the student.
        teacher_dim: width of the teacher's hidden states.
        teacher: runs on the fly on batches without ``teacher``; None where all have
            it, from a cache. It is no part of the model: not saved, not trained.
        layers: the teacher's layers, bottom up; 0 is its embedding.
        head: ``mlp``, on frames, as DistilHuBERT's; or ``linear``, which says the same
            on units, for less.
        cosine_weight: weight of the cosine loss beside L1.
        cardinality_weight: see :class:`GuidedModel`.
        segment_weight: likewise.
        frame_weight: likewise.
        feature_grad_mult: likewise.
    """

    def __init__(
        self,
        upstream: OFAUpstream,
        teacher_dim: int,
        teacher: Teacher | None = None,
        layers: Sequence[int] = LAYERS,
        head: str = "mlp",
        cosine_weight: float = 1.0,
        cardinality_weight: float = 1.0,
        segment_weight: float = 0.05,
        frame_weight: float = 0.5,
        feature_grad_mult: float = 1.0,
    ) -> None:
        super().__init__(
            upstream,
            cardinality_weight,
            segment_weight,
            frame_weight,
            feature_grad_mult,
        )
        self.layers = tuple(layers)
        self.teacher_dim = teacher_dim
        self.cosine_weight = cosine_weight
        dim, count = upstream.output_size(), len(self.layers)
        if head not in ("mlp", "linear"):
            raise ValueError(f"model_conf: head must be mlp or linear; got {head!r}")
        self.heads: nn.Module = (
            MLPHeads(dim, teacher_dim, count)
            if head == "mlp"
            else nn.Linear(dim, count * teacher_dim)
        )
        # In a tuple, torch does not see it: DDP and checkpoints leave it out.
        self._teacher = (teacher,)

    @torch.no_grad()
    def targets(self, speech: Tensor, speech_lengths: Tensor) -> Tensor:
        """(B, S, layers, D) hidden states of the teacher.

        Raises:
            ValueError: there is no teacher.
        """
        (teacher,) = self._teacher
        if teacher is None:
            raise ValueError(
                "a batch without `teacher`, from a model that was built for cached "
                "hidden states: give them for training and for validation alike"
            )
        return teacher.to(speech.device)(speech, speech_lengths, self.layers)[0]

    def forward(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        teacher: Tensor | None = None,
        teacher_lengths: Tensor | None = None,
        boundaries: Tensor | None = None,
        boundaries_lengths: Tensor | None = None,
        **kwargs,
    ) -> tuple[Tensor, dict[str, Tensor | None], Tensor]:
        """One step.

        Args:
            speech: (B, L) samples at 16 kHz.
            speech_lengths: (B,) samples.
            teacher: (B, S, layers, D) hidden states from a cache.
            teacher_lengths: (B,) frames.
            boundaries: (B, K) first frame after each segment; -1 on padding.
            boundaries_lengths: (B,) segments.
            **kwargs: ``utt_id``, codes and the like, unused.

        Returns:
            Loss, statistics and batch size, as ESPnet's trainer wants them.
        """
        if teacher is None:
            teacher = self.targets(speech, speech_lengths)
        frames, n_frames = self.upstream.extract(speech, speech_lengths)
        out = self.upstream.compress(frames, n_frames)
        predictions, encoded = self.upstream.predict_frames(
            out, self.heads, frames.shape[1]
        )
        l1, similarity, cosine = distillation_losses(
            predictions.unflatten(-1, (len(self.layers), self.teacher_dim)),
            teacher[:, : frames.shape[1]],
            n_frames,
        )
        loss = l1 + self.cosine_weight * similarity
        stats: dict[str, Tensor | None] = {
            "loss_distill": loss.detach(),
            "loss_l1": l1.detach(),
            "loss_cosine": similarity.detach(),
            "period_ms": FRAME_MS * n_frames.sum() / encoded.lengths.sum(),
        }
        for layer, value in zip(self.layers, cosine, strict=True):
            stats[f"cosine_{layer}"] = value
        loss = loss + self.guidance(
            out, n_frames, boundaries, boundaries_lengths, stats
        )
        stats["loss"] = loss.detach()
        gathered: Any = force_gatherable((loss, stats, speech.shape[0]), loss.device)
        return gathered


@torch.no_grad()
def start_from_teacher(
    student: OFAUpstream, teacher: Teacher, what: str = "layers"
) -> None:
    """Copy the teacher's weights into the student, as DistilHuBERT starts.

    Args:
        student: its compressor is left as it is, a squeeze with the positional
            convolution that it has in the place of the teacher's.
        teacher: where the weights come from.
        what: ``front`` (extractor, projection and positional convolution), ``layers``
            (those and as many layers, from the bottom, as the student has) or ``none``.

    Raises:
        ValueError: unknown ``what``; WavLM's layers; ESPnet's SSL task; or weights that
            do not fit, by name and shape.
    """
    if what not in ("none", "front", "layers"):
        raise ValueError(f"teacher init must be none, front or layers; got {what!r}")
    if what == "none":
        return
    source, config = teacher.front, student.config
    if source is None:
        raise ValueError(
            f"{teacher.name} runs in ESPnet's own code, so that nothing of it fits an "
            "upstream: use init: none"
        )
    wanted = ["extractor.", "norm.", "project."]
    if config.pos_kernel:
        wanted.append(POSITION)
    if not config.norm_first:
        wanted.append("transformer.norm.")  # of the embedding
    if what == "layers":
        if teacher.upstream is None:
            raise ValueError(
                f"{teacher.name}: WavLM's layers have a relative position bias, which "
                "the student's have not: use init: front"
            )
        if config.layers > teacher.depth:
            raise ValueError(
                f"{teacher.name} has {teacher.depth} layers, the student "
                f"{config.layers}"
            )
        wanted += [f"transformer.layers.{i}." for i in range(config.layers)]
        if config.norm_first and config.layers == teacher.depth:
            wanted.append("transformer.norm.")  # of the top
    prefixes = tuple(wanted)
    ours = {n: v for n, v in student.state_dict().items() if n.startswith(prefixes)}
    theirs = {n: v for n, v in source.state_dict().items() if n.startswith(prefixes)}
    problems = [
        f"{name}: student {_shape(ours, name)}, teacher {_shape(theirs, name)}"
        for name in sorted({*ours, *theirs})
        if _shape(ours, name) != _shape(theirs, name)
    ]
    flags = ["normalize_wave"] + ["norm_first", "heads"] * (what == "layers")
    pairs = [(x, getattr(config, x), getattr(source.config, x)) for x in flags]
    problems += [f"{x}: student {a}, teacher {b}" for x, a, b in pairs if a != b]
    if problems:
        raise ValueError(
            f"the student cannot start from {teacher.name}: {'; '.join(problems[:8])}"
            + (f" and {len(problems) - 8} more" if len(problems) > 8 else "")
            + ". Change upstream_conf, or give teacher_conf: {init: "
            + ("front} or {init: " if what == "layers" else "")
            + "none}"
        )
    for name, value in ours.items():
        value.copy_(theirs[name])


def _shape(state: dict[str, Tensor], name: str) -> str:
    return str(tuple(state[name].shape)) if name in state else "has none"
