"""Fresh processes, so that no run inherits another's heap, threads or luck.

The allocator trap. glibc gives every block above a threshold (32 MB at most, by
default) back to the system when it is freed, and the next one starts with a page fault
each 4 kB: half of the time of a convolution, say. Raising two limits keeps the memory.
Either way, all sides of a comparison share one process and so one setting.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEEP = str(4 << 30)  # bytes
ALLOCATORS: dict[str, dict[str, str]] = {
    "default": {},
    "keep": {"MALLOC_MMAP_THRESHOLD_": KEEP, "MALLOC_TRIM_THRESHOLD_": KEEP},
    # For counting memory: kept holes, nibbled at by the profiler's own small blocks,
    # would grow with the square of the calls.
    "release": {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)},
}


def run_fresh(
    job: Mapping[str, Any], *, processes: int, threads: int, allocator: str
) -> list[dict[str, Any]]:
    """Run a job of :mod:`espnet_ofa.bench.worker` several times, one after the other.

    Args:
        job: ``{"kind": ..., ...}``, JSON.
        processes: how many times.
        threads: of each process.
        allocator: ``default``, or ``keep`` or ``release`` freed memory.

    Returns:
        What each process answered.

    Raises:
        RuntimeError: a process failed; with the end of what it said.
    """
    variables = {
        **{k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")},
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        **ALLOCATORS[allocator],
    }
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        command = [sys.executable, "-m", "espnet_ofa.bench.worker", str(answer)]
        for _ in range(processes):
            done = subprocess.run(
                command,
                input=json.dumps(job),
                capture_output=True,
                text=True,
                env=variables,
            )
            if done.returncode:
                raise RuntimeError(
                    f"a benchmark process failed ({job['kind']}, exit status "
                    f"{done.returncode}):\n{done.stderr[-3000:]}"
                )
            answers.append(json.loads(answer.read_text(encoding="utf-8")))
            answer.unlink()
    return answers
