"""Work on many files in processes, with progress and time left on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    nj: int = 1,
    label: str = "",
) -> list[Result]:
    """``[function(item) for item in items]`` in ``nj`` processes, order kept.

    Args:
        function: importable by name (a module's function or a ``partial`` of one).
        items: one task each; picklable.
        nj: processes; 1 works in this one.
        label: what the progress line calls the work.

    Raises:
        ValueError: ``nj`` below 1. Exceptions of ``function`` pass through.
    """
    if nj < 1:
        raise ValueError(f"nj is {nj}; expected at least 1 process")
    terminal = sys.stderr.isatty()
    progress = tqdm(
        total=len(items),
        desc=label,
        unit="utt",
        file=sys.stderr,
        mininterval=0.2 if terminal else 10.0,  # a log file gets few lines
        disable=not items,
    )
    with progress:
        results: list[Result] = []
        if nj == 1 or len(items) < 2:
            for item in items:
                results.append(function(item))
                progress.update()
            return results
        nj = min(nj, len(items))
        # chunks: large enough to amortise the queue, small enough to share evenly
        chunk = max(1, min(32, len(items) // (4 * nj)))
        with ProcessPoolExecutor(nj) as pool:
            for result in pool.map(function, items, chunksize=chunk):
                results.append(result)
                progress.update()
    return results
