"""Lambda: the one number that sets how much time resolution is paid for.

``lam = 0`` keeps every frame, ``lam = 1`` makes one unit per predicted segment, values
between mix the two, and values in (1, 2) make units longer than segments
(Chen, Meng, Lee, "Once-for-All Sequence Compression", ICASSP 2023).

Which lambda is used now, :mod:`espnet_ofa.subsampling.policy` says.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Lam = float | Tensor
LamRule = Callable[[Tensor, Tensor], Lam]  # from alpha (B, S) and lengths (B,)
LamTrain = str | float | Sequence[float] | None

DEFAULT_MEAN_ALPHA = 2 / 9
FRAME_MS = 20.0
MAX_LAM = 2.0
_MODES = (
    "uniform",
    "ends",
    "log_period",
    "uniform_period",
    "ends_period",
    "extended",
)


def compress_weights(alpha: Tensor, lam: Lam) -> Tensor:
    """Mix predicted weights with lambda.

    ``lam = 0`` gives ones, ``lam = 1`` gives ``alpha``, ``lam`` in (1, 2) gives
    ``(2 - lam) * alpha``.

    Args:
        alpha: (B, S) weights in [0, 1], the share of a unit that a frame contributes.
        lam: a number, a 0-d or (1,) tensor, or a (B,) tensor with one value an
            utterance. May carry gradient.

    Returns:
        (B, S) weights, fp32 or better, differentiable in ``alpha`` and ``lam``; at
        ``lam = 1`` the gradient is that of the side below.

    Raises:
        ValueError: a number outside [0, 2]. Tensors are not checked, since that
            would wait for the device.

    Reference: the "alpha modification" of the ICASSP 2023 paper, section 2.2.
    """
    alpha = alpha.to(torch.promote_types(alpha.dtype, torch.float32))
    if not isinstance(lam, Tensor):
        check_lam(lam)
        ones_share, alpha_share = max(1.0 - lam, 0.0), min(lam, 2.0 - lam)
        return ones_share + alpha_share * alpha
    dtype = alpha.dtype
    lam = lam.to(alpha.device, torch.promote_types(lam.dtype, dtype))
    if lam.dim() == 1:
        lam = lam[:, None]  # (B, 1) or (1, 1)
    # Shares of a float64 lambda are rounded once, like those of a number.
    below, above = (1.0 - lam).to(dtype), (2.0 - lam).to(dtype)
    return torch.where(lam <= 1.0, below + lam.to(dtype) * alpha, above * alpha)


def check_lam(lam: float) -> float:
    """Return ``lam`` as a float, or raise ValueError when it is outside [0, 2]."""
    if isinstance(lam, str):
        raise ValueError(f"lambda must be a number; got the string {lam!r}")
    value = float(lam)
    if not 0.0 <= value <= MAX_LAM:
        raise ValueError(
            f"lambda must lie in [0, {MAX_LAM:g}] (0 keeps every frame, 1 makes one "
            f"unit per segment); got {value:g}"
        )
    return value


def lam_to_period_ms(
    lam: float, *, mean_alpha: float = DEFAULT_MEAN_ALPHA, frame_ms: float = FRAME_MS
) -> float:
    """Nominal frame period in ms for a lambda, given the mean alpha.

    A plan, not a measurement: the period of real speech is always measured.
    """
    lam = check_lam(lam)
    share = max(1.0 - lam, 0.0) + min(lam, 2.0 - lam) * mean_alpha
    return frame_ms / share if share > 0 else float("inf")


def period_ms_to_lam(
    period_ms: float,
    *,
    mean_alpha: float = DEFAULT_MEAN_ALPHA,
    frame_ms: float = FRAME_MS,
) -> float:
    """Lambda whose nominal frame period is ``period_ms``; inverse of the above."""
    if period_ms < frame_ms:
        raise ValueError(
            f"a frame period of {period_ms:g} ms is below the frames' own "
            f"{frame_ms:g} ms; ask for {frame_ms:g} ms or more"
        )
    share = frame_ms / period_ms
    if share >= mean_alpha:
        return (1.0 - share) / (1.0 - mean_alpha)
    return 2.0 - share / mean_alpha


class LamSampler:
    """Draws lambda in training, the same on every rank.

    The value depends on ``(seed, step)`` alone, ``step`` being the number of draws so
    far, so data-parallel workers agree without talking to each other.

    What a mode does to the nominal period T, from the frame (20 ms) to the segment
    (90 ms), is its density there:

    ==================  ===================  ==============================
    mode                density              half of the steps are below
    ==================  ===================  ==============================
    ``uniform``         falls as 1 / T^2     32.7 ms (lambda is uniform)
    ``log_period``      falls as 1 / T       42.4 ms (each octave alike)
    ``uniform_period``  constant             55 ms
    ``extended``        as 1 / T^2, twice    90 ms; one in twenty is beyond 900
    ==================  ===================  ==============================

    ``extended`` is uniform in lambda over [0, 2): with a half of the density below 90
    ms, and the other half spread without an end beyond. ``ends`` is ``uniform`` for one
    half of the steps, and at exactly 0 and 1 for a quarter each: of a uniform draw, the
    ends see neighbours on one side only. ``ends_period`` is the same with
    ``uniform_period`` between. The rates of the sandwich rule (Yu and Huang, 2019), in
    turns rather than all in each step.

    Args:
        mode: one of these, a number (no draw), or ``[low, high]`` for a lambda that is
            uniform between them.
        seed: start of the sequence.
        mean_alpha: rate that the two modes of the period assume at lambda 1 (the draw
            is the same for frames of any length).
    """

    def __init__(
        self,
        mode: str | float | Sequence[float],
        seed: int = 0,
        mean_alpha: float = DEFAULT_MEAN_ALPHA,
    ) -> None:
        self.mode = mode
        self.seed = seed
        self.mean_alpha = mean_alpha
        self.step = 0
        self._range: tuple[float, float] | None = None
        if isinstance(mode, str):
            if mode not in _MODES:
                raise ValueError(
                    f"lam_train must be one of {', '.join(_MODES)}, a number or "
                    f"[low, high]; got {mode!r}"
                )
        elif isinstance(mode, Sequence):
            if len(mode) != 2 or check_lam(mode[0]) > check_lam(mode[1]):
                raise ValueError(f"lam_train range must be [low, high]; got {mode}")
            self._range = (float(mode[0]), float(mode[1]))
        else:
            self._range = (check_lam(mode), check_lam(mode))

    def __call__(self) -> float:
        draw = random.Random(f"{self.seed}/{self.step}").random()  # in [0, 1)
        self.step += 1
        if self._range is not None:
            low, high = self._range
            return low + (high - low) * draw
        if self.mode == "uniform":
            return draw
        if self.mode in ("ends", "ends_period"):
            draw = min(max(2.0 * draw - 0.5, 0.0), 1.0)
            if self.mode == "ends" or draw in (0.0, 1.0):
                return draw
        if self.mode == "extended":
            return MAX_LAM * draw
        longest = lam_to_period_ms(1.0, mean_alpha=self.mean_alpha)
        if self.mode == "log_period":
            period = FRAME_MS * (longest / FRAME_MS) ** draw
        else:
            period = FRAME_MS + (longest - FRAME_MS) * draw
        return period_ms_to_lam(period, mean_alpha=self.mean_alpha)


class LearnableLam(nn.Module):
    """A lambda that the task learns, kept inside its bounds.

    ``lam = low + (high - low) * sigmoid(speed * raw)``. ``raw`` is the parameter, of
    shape (1,) because ESPnet's initialisers refuse 0-d parameters. ``speed`` acts as a
    learning-rate group would, with any optimizer and any schedule: ``raw`` gets the
    gradient that it would have at speed 1, so that ``grad_clip`` does not see lambda
    instead of the weights. ESPnet has one group, and a schedule such as
    piecewiselinearwarmuplr would not keep others apart.

    The loss as a function of lambda is a gentle slope under steep ripples: all units
    of an utterance shift with lambda, and one more or less is a step. Its derivative is
    that of the ripples, and knows nothing of steps. So where the loss can be looked at
    twice (``model: ofa``), lambda follows the slope of the line that fits the loss best
    within ``window``: see :meth:`pair` and :meth:`follow`.

    Args:
        init: starting value of lambda.
        low: lower bound.
        high: upper bound.
        speed: learning rate of the sigmoid's argument, relative to the other weights.
        window: how far from lambda the loss is looked at.
        alone: with ``model: ofa``, nothing else learns: for data that the weights have
            not seen, where the loss says more about lambda.
    """

    def __init__(
        self,
        init: float = 0.5,
        low: float = 0.0,
        high: float = 1.0,
        speed: float = 100.0,
        window: float = 0.1,
        alone: bool = False,
    ) -> None:
        super().__init__()
        if not check_lam(low) < check_lam(high):
            raise ValueError(
                f"lambda bounds must satisfy low < high; got {low}, {high}"
            )
        if not low <= init <= high:
            raise ValueError(f"lambda must start in [{low}, {high}]; got {init}")
        for name, value in (("speed", speed), ("window", window)):
            if value <= 0:
                raise ValueError(f"{name} must be positive; got {value}")
        self.low, self.high, self.speed, self.init = low, high, speed, init
        self.window = min(window, (high - low) / 2)
        self.alone = alone
        self.raw = nn.Parameter(torch.empty(1))
        self.raw._no_weight_decay = True  # type: ignore[attr-defined]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put lambda back to where it starts (a sigmoid reaches no bound exactly)."""
        share = (self.init - self.low) / (self.high - self.low)
        share = min(max(share, 0.01), 0.99)
        with torch.no_grad():
            self.raw.fill_(torch.logit(torch.tensor(share)).item() / self.speed)

    def value(self) -> Tensor:
        """(1,) lambda, differentiable."""
        raw = self.raw.to(torch.promote_types(self.raw.dtype, torch.float32))
        share = torch.sigmoid(raw + (self.speed - 1) * raw.detach())
        return self.low + (self.high - self.low) * share

    def pair(self, draw: float) -> tuple[Tensor, Tensor]:
        """Two lambdas on both sides of this one, (1,) each, without gradient.

        Both are within the bounds; close to one, the window ends there.

        Args:
            draw: in [0, 1): how far apart, and which is the larger.
        """
        room = self.window
        centre = self.value().detach().clamp(self.low + room, self.high - room)
        offset = room * (2.0 * draw - 1.0)
        return centre + offset, centre - offset

    def follow(
        self, pair: tuple[Tensor, Tensor], rise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Zero, whose gradient is the slope of the loss over lambda; and that slope.

        Over uniform draws, offset x rise has the mean of the covariance of lambda and
        loss: by their variance, that is the slope of the best line.

        Args:
            pair: of lambdas, from :meth:`pair`.
            rise: loss at the first minus that at the second.
        """
        slope = 0.75 / self.window**2 * (pair[0] - pair[1]) * rise.detach()
        lam = self.value()
        return slope * (lam - lam.detach()), slope
