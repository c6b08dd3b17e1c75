"""Masks for masked prediction over units of any length.

Spans are drawn on frames, in milliseconds, so that a span lasts as long at 90 ms as at
20 ms; a unit is masked when at least half of its duration is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from espnet_ofa.cif import expand
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.subsampling.rate import FRAME_MS


def draw_frame_mask(
    lengths: Tensor,
    size: int,
    span_ms: float = 200.0,
    share: float = 0.5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw spans of masked frames.

    Every frame starts a span with the probability that makes the expected share of
    masked frames ``share``; spans may overlap. Nothing waits for the device.

    Args:
        lengths: (B,) frames that are not padding.
        size: S.
        span_ms: length of one span in ms.
        share: expected share of frames under a mask, in (0, 1).
        generator: source of randomness on the device of ``lengths``.

    Returns:
        (B, S) bool, False on padding.

    Raises:
        ValueError: ``share`` or ``span_ms`` out of range.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"mask share must lie in (0, 1); got {share}")
    span = round(span_ms / FRAME_MS)
    if span < 1:
        raise ValueError(
            f"mask span must be at least one frame ({FRAME_MS:g} ms); got {span_ms} ms"
        )
    start_prob = 1.0 - (1.0 - share) ** (1.0 / span)
    draws = torch.rand(
        len(lengths), size + span - 1, generator=generator, device=lengths.device
    )
    starts = (draws < start_prob).float()
    # Frame t lies under a mask if any of the last `span` positions starts a span.
    masked = torch.nn.functional.max_pool1d(starts[:, None], span, stride=1)[:, 0] > 0
    return masked & valid_mask(lengths, size)


def unit_mask_from_frames(
    frame_mask: Tensor, durations: Tensor, lengths: Tensor
) -> Tensor:
    """Units of which at least half the duration is masked.

    At least one unit of an utterance is masked, and at least one is clear when it has
    two or more: the units with the largest and smallest masked share.

    Args:
        frame_mask: (B, S) bool.
        durations: (B, U) frames.
        lengths: (B,) units.

    Returns:
        (B, U) bool, False on padding.
    """
    durations = durations.double()
    ends = durations.cumsum(1)  # (B, U), in frames
    masked_time = torch.nn.functional.pad(frame_mask.double().cumsum(1), (1, 0))

    def integral(time: Tensor) -> Tensor:  # masked frames before `time`
        whole = time.floor().clamp(0, frame_mask.shape[1] - 1)
        left = masked_time.gather(1, whole.long())
        right = masked_time.gather(1, whole.long() + 1)
        return left + (time - whole).clamp(0, 1) * (right - left)

    covered = integral(ends) - integral(ends - durations)
    share = covered / durations.clamp(min=1e-6)
    valid = valid_mask(lengths, durations.shape[1])
    most = torch.where(valid, share, -1.0).argmax(1, keepdim=True)
    least = torch.where(valid, share, 2.0).argmin(1, keepdim=True)
    mask = (share >= 0.5) & valid
    none = ~mask.any(1, keepdim=True)
    mask = mask.scatter(1, most, mask.gather(1, most) | none)
    all_masked = (mask == valid).all(1, keepdim=True) & (lengths[:, None] > 1)
    return mask.scatter(1, least, mask.gather(1, least) & ~all_masked)


def frames_inside(unit_mask: Tensor, durations: Tensor, num_frames: int) -> Tensor:
    """Frames that lie wholly inside masked units.

    Args:
        unit_mask: (B, U) bool.
        durations: (B, U) frames.
        num_frames: S.

    Returns:
        (B, S) bool.
    """
    cover = expand(unit_mask[..., None].float(), durations, num_frames)
    return cover[..., 0] > 1.0 - 1e-4


def majority_hits(
    targets: Tensor, counted: Tensor, durations: Tensor, num_codes: int
) -> Tensor:
    """How many frames carry the majority code of their unit.

    Divided by all counted frames, this is the accuracy that no model can exceed at this
    rate, but for the blend of two units in the frame on their border. A frame belongs
    to the unit that covers its middle.

    Args:
        targets: (B, S) codes; anything where ``counted`` is False.
        counted: (B, S) bool, frames that the accuracy is about.
        durations: (B, U) frames.
        num_codes: K.

    Returns:
        0-d float32.
    """
    ends = durations.double().cumsum(1).contiguous()
    middle = torch.arange(targets.shape[1], device=targets.device).double() + 0.5
    unit = torch.searchsorted(ends, middle.expand(len(targets), -1).contiguous())
    unit = unit.clamp(max=ends.shape[1] - 1)
    counts = torch.zeros(len(targets), ends.shape[1] * num_codes, device=ends.device)
    index = unit * num_codes + targets.clamp(min=0)
    counts = counts.scatter_add(1, index.long(), counted.float())
    return counts.unflatten(1, (-1, num_codes)).amax(-1).sum()
