"""Peak memory of a call, exact: what the tensors took, not what the process kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Most bytes that tensors held at one moment of ``call()``, beyond those before it.

    On a CPU this follows every allocation through PyTorch's profiler, so it depends
    neither on earlier calls nor on how the C library gives memory back; buffers that a
    kernel gets past PyTorch are not seen (:func:`peak_resident_bytes` sees them). What
    ``call`` returns is held until it ends. Not for timing: the profiler runs.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        kept = call()
        torch.cuda.synchronize(device)
        del kept
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = call()
    del kept
    results: Any = record.profiler and record.profiler.kineto_results
    events = [
        (event.start_ns(), event.nbytes())
        for event in results.events()
        if event.name() == "[memory]"
    ]
    held = most = 0
    for _, change in sorted(events, key=lambda event: event[0]):  # stable
        held += change
        most = max(most, held)
    return most


def peak_resident_bytes(call: Callable[[], object]) -> int | None:
    """Growth of the process' resident memory at its highest during ``call()``.

    Pages that earlier calls left to the process are not counted again, so it says
    something only in a fresh process. None where the system cannot tell (not Linux).
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    except OSError:
        return None
    before = _status("VmRSS")
    kept = call()
    del kept
    return max(_status("VmHWM") - before, 0)


def _status(name: str) -> int:
    """A line of /proc/self/status, kB, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")
