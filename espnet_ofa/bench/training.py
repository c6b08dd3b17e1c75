"""Training throughput over lambda: hours of audio per hour, and peak memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.bench.encoders import RATE, make_waves
from espnet_ofa.bench.parts import PartTimer
from espnet_ofa.bench.timing import Timing
from espnet_ofa.report.memory import peak_bytes
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig

LABELS = 30  # and a blank: a character set
LABELS_PER_SECOND = 4.0  # so few that 90 ms has enough units


class _Step:
    """Forward, CTC, backward and AdamW of an upstream on one batch."""

    def __init__(
        self, config: UpstreamConfig, wave: Tensor, lengths: Tensor, autocast: bool
    ) -> None:
        device = wave.device
        self.upstream = OFAUpstream(config).to(device).train()
        self.head = nn.Linear(config.dim, LABELS + 1).to(device)
        parameters = [*self.upstream.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-5)
        self.wave, self.lengths, self.autocast = wave, lengths, autocast
        counts = (lengths / RATE * LABELS_PER_SECOND).long().clamp(min=1)
        shape = len(wave), int(counts.max())
        self.labels = torch.randint(1, LABELS + 1, shape, device=device)
        self.counts = counts
        self.timer = PartTimer(device)
        self.units = self.frames = 0

    def __call__(self, lam: float) -> None:
        with self.timer.part("forward"):
            with torch.autocast(
                self.wave.device.type, torch.bfloat16, enabled=self.autocast
            ):
                out = self.upstream(self.wave, self.lengths, lam=lam)
                logits = self.head(out.hidden_states[-1])
            scores = logits.float().log_softmax(-1).transpose(0, 1)
            loss = F.ctc_loss(
                scores, self.labels, out.lengths, self.counts, zero_infinity=True
            )
        with self.timer.part("backward"):
            loss.backward()
        with self.timer.part("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.units, self.frames = int(out.lengths.sum()), int(out.frame_lengths.sum())


def time_training(
    *,
    device: torch.device,
    config: dict[str, Any],
    lams: list[float],
    batch: int,
    seconds: float,
    rounds: int,
    autocast: bool = False,
) -> dict[str, Any]:
    """Train an upstream with CTC on noise, at each lambda in turns.

    Args:
        config: of the upstream.
        lams: lambdas; the same model takes a step at each.
        batch: utterances of ``seconds`` each.
        rounds: steps of each lambda, after one that does not count.
        autocast: bf16.

    Returns:
        ``rows``: by lambda the seconds of a step, its parts, ``hours_per_hour`` of
        audio, frame period, and ``peak_bytes``: most that tensors held in a step beyond
        weights and optimizer states, gradients included.
    """
    wave, lengths = (x.to(device) for x in make_waves(batch, seconds, False))
    step = _Step(UpstreamConfig.from_dict(config), wave, lengths, autocast)
    audio = float(lengths.sum()) / RATE
    times: dict[float, list[dict[str, float]]] = {lam: [] for lam in lams}
    periods: dict[float, float] = {}
    for turn in range(rounds + 1):
        for lam in lams:
            step.timer.reset()
            step(lam)
            periods[lam] = OFAUpstream.frame_ms * step.frames / step.units
            if turn:
                times[lam].append(dict(step.timer.seconds))
    rows = []
    for lam in lams:
        total = Timing.of([sum(parts.values()) for parts in times[lam]])
        rows.append(
            {
                "lam": lam,
                "period_ms": periods[lam],
                "seconds": total.seconds,
                "low": total.low,
                "high": total.high,
                "hours_per_hour": audio / total.seconds,
                "parts": {
                    part: Timing.of([one[part] for one in times[lam]]).seconds
                    for part in times[lam][0]
                },
                "peak_bytes": peak_bytes(lambda lam=lam: step(lam), device),
            }
        )
    return {"rows": rows, "audio_seconds": audio}
