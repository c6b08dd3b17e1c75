"""Repeating calls of several sides fairly, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Call = Callable[[int], object]  # of the number of the call: which buffers to take


@dataclass(frozen=True)
class Timing:
    """Times of one side.

    Attributes:
        seconds: median.
        low: first quartile.
        high: third quartile.
        calls: how many were timed.
    """

    seconds: float
    low: float
    high: float
    calls: int

    @classmethod
    def of(cls, times: list[float]) -> Timing:
        """Summary of one or more times."""
        quartiles = [times[0]] * 3
        if len(times) > 1:
            quartiles = statistics.quantiles(times, n=4, method="inclusive")
        return cls(quartiles[1], quartiles[0], quartiles[2], len(times))


def interleave(
    sides: Mapping[str, Call],
    *,
    rounds: int,
    block: int = 5,
    device: torch.device | str = "cpu",
    on_device: bool = False,
    most_seconds: float = 20.0,
) -> dict[str, Timing]:
    """Time all sides in turns, so that a change of the machine's mood meets them all.

    A turn is a block of calls, the first of which is not counted: the side before has
    filled the caches with its own data.

    Args:
        sides: calls by name.
        rounds: turns of each side, after one that does not count.
        block: counted calls of a turn.
        device: CUDA devices are waited for before and after each call.
        on_device: time spent on the CUDA device between two events, instead of wall
            time.
        most_seconds: no more turns for a side that has had as much; a side whose calls
            take a fiftieth of it has one call in a turn.
    """
    device = torch.device(device)
    times: dict[str, list[float]] = {name: [] for name in sides}
    spent = dict.fromkeys(sides, 0.0)
    slow: set[str] = set()
    count = 0
    for turn in range(rounds + 1):
        for name, call in sides.items():
            if spent[name] > most_seconds and times[name]:
                continue
            calls = 2 if turn == 0 else 1 if name in slow else block + 1
            for i in range(calls):
                one = _time(call, count, device, on_device)
                count += 1
                spent[name] += one
                if turn and (i or calls == 1):
                    times[name].append(one)
                # The very first call loads things. Where a call is long, caches and
                # blocks of calls do not matter.
                if turn == 0 and i == 1 and one > most_seconds / 50:
                    slow.add(name)
    return {name: Timing.of(each) for name, each in times.items()}


def _time(call: Call, number: int, device: torch.device, on_device: bool) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        call(number)
        return time.perf_counter() - start
    torch.cuda.synchronize(device)
    if on_device:
        # A millisecond or so of work ahead, so that no launch is waited for.
        torch.cuda._sleep(2_000_000)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call(number)
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end) / 1000.0
    start = time.perf_counter()
    call(number)
    torch.cuda.synchronize(device)
    return time.perf_counter() - start
