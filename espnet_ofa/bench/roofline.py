"""What this machine can do at best: bytes copied and products multiplied per second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from espnet_ofa.bench.timing import Call, interleave


def roofline(
    device: torch.device, *, rounds: int = 3, most_seconds: float = 5.0, size: int = 768
) -> dict[str, Any]:
    """Measured ceilings.

    Args:
        device: to measure on.
        rounds: turns of each.
        most_seconds: for each.
        size: width of the matrices, that of a Transformer.

    Returns:
        ``copy_bytes_per_second``: ``warm`` (4 MiB, again and again) and ``cold`` (256
        MiB), read and write both counted; ``macs_per_second`` of a (750, size) by
        (size, 4 size) product, by dtype.
    """
    small, large = (
        tuple(torch.ones(count, device=device) for _ in range(2))
        for count in (1 << 19, 1 << 25)
    )
    copies: dict[str, Call] = {
        "warm": lambda i: small[0].copy_(small[1]),
        "cold": lambda i: large[0].copy_(large[1]),
    }
    moved = {"warm": 2 * small[0].nbytes, "cold": 2 * large[0].nbytes}
    frames = 750
    products: dict[str, Call] = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(frames, size, device=device, dtype=dtype)
        w = torch.randn(4 * size, size, device=device, dtype=dtype)
        products[str(dtype).removeprefix("torch.")] = _product(x, w)
    macs = frames * size * 4 * size
    timings = interleave(
        {**copies, **products}, rounds=rounds, device=device, most_seconds=most_seconds
    )
    return {
        "copy_bytes_per_second": {k: moved[k] / timings[k].seconds for k in copies},
        "macs_per_second": {k: macs / timings[k].seconds for k in products},
    }


def _product(x: Tensor, w: Tensor) -> Call:
    return lambda i: torch.nn.functional.linear(x, w)
