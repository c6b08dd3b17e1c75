"""A learned lambda ends at its task's optimum, wherever it started.

The tasks' readers are fixed and perfect: what is lost is lost in the compressor.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_ofa.subsampling import LearnableLam, build_compressor
from espnet_ofa.subsampling.base import CompressorOutput
from espnet_ofa.subsampling.rate import LamSampler

KINDS = 8  # of labels; 0 is CTC's blank
SHARP = 4.0  # logit of a unit that holds one label
STEPS = 100
STARTS = 0.2, 0.643, 0.95


def utterances(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Six different labels each, held for 2 to 5 frames.

    Returns:
        Frames (B, S, KINDS), one-hot; lengths (B,); labels (B, 6); where the middle of
        each is (B, 6), in frames.
    """
    random = torch.Generator().manual_seed(seed)
    order = torch.rand(count, KINDS - 1, generator=random).argsort(1) + 1
    labels = order[:, :6]
    spans = torch.randint(2, 6, (count, 6), generator=random)
    rows = [
        F.one_hot(row.repeat_interleave(span), KINDS).float()
        for row, span in zip(labels, spans, strict=True)
    ]
    frames = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return frames, spans.sum(1), labels, spans.cumsum(1) - spans / 2


def ctc(out: CompressorOutput, labels: Tensor, middles: Tensor) -> Tensor:
    scores = (SHARP * out.units).log_softmax(-1).transpose(0, 1)
    wanted = torch.full((len(labels),), labels.shape[1])
    losses = F.ctc_loss(scores, labels, out.lengths, wanted, reduction="none")
    return losses.clamp(max=30.0).sum()  # infinite where units are too few


def seq2seq(out: CompressorOutput, labels: Tensor, middles: Tensor) -> Tensor:
    """Attends to the unit that covers the middle of a label."""
    ends = out.durations.cumsum(1)
    unit = torch.searchsorted(ends, middles).clamp(max=ends.shape[1] - 1)
    seen = out.units.gather(1, unit[..., None].expand(-1, -1, KINDS))
    return F.cross_entropy((SHARP * seen).mT, labels, reduction="sum")


def pooling(out: CompressorOutput, labels: Tensor, middles: Tensor) -> Tensor:
    """Which labels there are, from the mean over units by duration."""
    share = out.durations / out.durations.sum(1, keepdim=True)
    found = ((SHARP * out.units).softmax(-1) * share[..., None]).sum(1)
    return -found.clamp(min=1e-6).log().gather(1, labels).sum()


@pytest.fixture(scope="module")
def compressor():
    torch.manual_seed(0)
    return build_compressor("cif", KINDS).eval()


@torch.no_grad()
def loss_and_period(compressor, task, price, batch, lam) -> tuple[Tensor, float]:
    frames, lengths, labels, middles = batch
    out = compressor(frames, lengths, lam)
    share = out.weights.sum() / lengths.sum()
    loss = task(out, labels, middles) / len(frames) + price * share
    return loss, 20.0 * (lengths.sum() / out.lengths.sum()).item()


def learn(compressor, task, price, start) -> LearnableLam:
    learned, draws = LearnableLam(start), LamSampler("uniform")
    optimizer = torch.optim.Adam(learned.parameters(), lr=1e-3, betas=(0.9, 0.98))
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, STEPS)
    for step in range(STEPS):
        batch = utterances(8, step)
        pair = learned.pair(draws())
        here, there = (
            loss_and_period(compressor, task, price, batch, lam)[0] for lam in pair
        )
        optimizer.zero_grad()
        learned.follow(pair, here - there)[0].backward()
        optimizer.step()
        decay.step()
    return learned


@pytest.mark.parametrize(
    ("task", "price"), [(ctc, 0.0), (ctc, 5.0), (seq2seq, 5.0), (pooling, 0.3)]
)
def test_three_starts_meet_at_the_optimum(compressor, task, price):
    many = utterances(300, 10**6)
    grid = torch.linspace(0.0, 1.0, 21)[:, None]
    curve = [loss_and_period(compressor, task, price, many, lam)[0] for lam in grid]
    best = min(range(21), key=lambda k: curve[k])
    assert 0 < best < 20  # inside the bounds
    periods = []
    for start in STARTS:
        lam = learn(compressor, task, price, start).value().detach()
        assert lam.item() == pytest.approx(grid[best].item(), abs=0.1)
        periods.append(loss_and_period(compressor, task, price, many, lam)[1])
    assert max(periods) - min(periods) < 5.0


@pytest.mark.parametrize("start", [0.0, 0.3, 0.5, 1.0])
def test_over_draws_it_is_the_slope_of_the_best_line(start):
    """Of a parabola that is the derivative in the middle of the window."""
    learned = LearnableLam(start, low=0.0, high=1.0, speed=50.0, window=0.2)
    slopes = []
    for k in range(1000):
        here, there = pair = learned.pair((k + 0.5) / 1000)
        assert min(pair) >= -1e-6 and max(pair) <= 1 + 1e-6
        rise = (3 * here - 4 * here**2) - (3 * there - 4 * there**2)
        pull, slope = learned.follow(pair, rise)
        assert pull == 0.0
        slopes.append(slope.item())
    lam = learned.value().item()
    middle = min(max(lam, 0.2), 0.8)
    assert sum(slopes) / 1000 == pytest.approx(3 - 8 * middle, abs=1e-2)
    pull.backward()  # the gradient that raw would have at speed 1
    assert learned.raw.grad is not None
    assert learned.raw.grad.item() == pytest.approx(slopes[-1] * lam * (1 - lam), 1e-3)


def test_a_window_fits_between_the_bounds():
    assert LearnableLam(0.65, low=0.6, high=0.7).window == pytest.approx(0.05)
    with pytest.raises(ValueError, match="window must be positive"):
        LearnableLam(0.5, window=0.0)
