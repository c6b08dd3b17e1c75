"""What each benchmark found, as Markdown blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from espnet_ofa.bench.operator import COPY, OURS
from espnet_ofa.bench.results import number, table, times
from espnet_ofa.report.cost import growth_exponent

Rows = Sequence[Mapping[str, Any]]


def _ratio(above: float, below: float) -> str | None:
    return number(above / below) if below else None


def onnx_table(rows: Rows) -> str:
    """By side, each lambda: ms, and how many times faster than PyTorch as it is."""
    lams = list(dict.fromkeys(row["lam"] for row in rows))
    base = {row["lam"]: row["seconds"] for row in rows if row["side"] == "PyTorch"}
    body = []
    for side in dict.fromkeys(row["side"] for row in rows):
        mine = {row["lam"]: row for row in rows if row["side"] == side}
        cells = [
            cell
            for lam in lams
            for cell in (times(mine[lam]), _ratio(base[lam], mine[lam]["seconds"]))
        ]
        body.append([side, *cells])
    head = [
        cell
        for lam in lams
        for cell in (f"lambda {lam:g}, ms", "times faster than PyTorch")
    ]
    return table(["side", *head], body)


def _pass(point: Mapping[str, Any]) -> str:
    return "with backward" if point["backward"] else "forward"


def operator_blocks(points: Rows, memory: Rows) -> list[str]:
    """Sides, lambda, length and memory of the operator."""
    studies: dict[str, tuple[str, Callable[[Rows], str], Rows]] = {
        "sides": ("Side by side", _sides_table, points),
        "lambda": ("Over lambda, cold", _lambda_table, points),
        "length": ("Over the length, cold, lambda 1, batch 1", _length_table, points),
        "memory": ("Peak memory", _memory_table, memory),
    }
    blocks = []
    for study, (title, make, rows) in studies.items():
        chosen = [row for row in rows if study in ("memory", row["study"])]
        if chosen:
            blocks += [f"## {title}", make(chosen)]
    return blocks


def _sides_table(points: Rows) -> str:
    rows = []
    for point in points:
        sides = point["sides"]
        peer = sides.get("torch-cif")
        for name, timing in sides.items():
            rate = point["bytes"] / timing["seconds"] / 1e9
            wall = point.get("wall", {}).get(name)
            rows.append(
                [
                    f"{point['batch']} x {point['frames']} x {point['dim']}",
                    _pass(point),
                    "cold" if point["cold"] else "warm",
                    name,
                    times(timing),
                    None if wall is None else times(wall),
                    _ratio(timing["seconds"], sides[COPY]["seconds"]),
                    peer and _ratio(peer["seconds"], timing["seconds"]),
                    number(rate),
                ]
            )
    head = ["size", "pass", "cache", "side", "ms", "wall ms", "times the copy"]
    return (
        "`warm`: the same buffers in every call; `cold`: more of them than the cache "
        "holds. `copy`: a preallocated `copy_` of the same bytes.\n\n"
        + table([*head, "times faster than torch-cif", "GB/s"], rows)
    )


def _lambda_table(points: Rows) -> str:
    rows = []
    for point in points:
        sides = point["sides"]
        peer = sides.get("torch-cif")
        rows.append(
            [
                _pass(point),
                f"{point['lam']:g}",
                point["units"],
                times(sides[OURS]),
                times(sides[COPY]),
                _ratio(sides[OURS]["seconds"], sides[COPY]["seconds"]),
                None if peer is None else times(peer),
            ]
        )
    head = ["pass", "lambda", "units", "espnet_ofa, ms", "copy, ms", "times the copy"]
    return table([*head, "torch-cif, ms"], rows)


def _length_table(points: Rows) -> str:
    rows = []
    for point in points:
        sides = point["sides"]
        ours, copy = sides[OURS], sides[COPY]
        ratio = _ratio(ours["seconds"], copy["seconds"])
        rows.append([_pass(point), point["frames"], times(ours), times(copy), ratio])
    lines = [
        table(["pass", "frames", "espnet_ofa, ms", "copy, ms", "times the copy"], rows)
    ]
    for backward in (False, True):
        chosen = [p for p in points if p["backward"] == backward]
        # Where a call's fixed cost no longer hides the slope.
        chosen = chosen[len(chosen) // 2 - 1 :]
        if len(chosen) > 1:
            sizes = [point["frames"] for point in chosen]
            spent = [point["sides"][OURS]["seconds"] for point in chosen]
            lines.append(
                f"Time grows with frames to the power of "
                f"{growth_exponent(sizes, spent):.2f} from {sizes[0]} frames on "
                f"({_pass(chosen[0])})."
            )
    return "\n\n".join(lines)


def _memory_table(memory: Rows) -> str:
    rows = [
        [
            item["side"],
            _pass(item),
            number(item["over_io"]),
            number(item["resident_over_io"]),
        ]
        for item in memory
    ]
    return (
        "Over the bytes of frames and units: what tensors held, and what a fresh "
        "process grew by.\n\n" + table(["side", "pass", "tensors", "process"], rows)
    )


def encoder_blocks(
    sides: Rows, ceilings: Mapping[str, Any], dtype: str, growth: Mapping[str, Any]
) -> list[str]:
    """Encoders beside HuBERT, where their time goes, and how it grows."""
    peak = ceilings["macs_per_second"]["bfloat16" if dtype == "bf16" else "float32"]
    rows = []
    for side in sides:
        macs = side.get("macs")
        parts = side.get("parts") or {}
        spent = parts.get("Transformer")
        ideal = side.get("ideal")
        rows.append(
            [
                side["name"],
                number(side.get("period_ms")),
                times(side),
                number(side["rtf"]),
                number(side["speedup"]),
                macs and number(macs / 1e9),
                macs and f"{100 * macs / side['seconds'] / peak:.0f} %",
                *(
                    number(1000 * parts[p]) if p in parts else None
                    for p in ("extractor", "compressor", "Transformer")
                ),
                f"{100 * ideal / spent:.0f} %" if spent and ideal else None,
            ]
        )
    head = [
        "encoder",
        "frame period (ms)",
        "ms",
        "RTF",
        "times faster than HuBERT base",
        "GMACs",
    ]
    head += ["of the measured product", "extractor, ms", "compressor, ms"]
    blocks = [table([*head, "Transformer, ms", "of its ideal speed"], rows)]
    how = dict.fromkeys(f"{s['extractor']}: {s['how']}" for s in sides if "how" in s)
    blocks.append("Ours: " + "; ".join(how) + ".")
    if growth:
        blocks += ["## Over the length, one utterance, log-mel", _growth_table(growth)]
    return blocks


def _growth_table(growth: Mapping[str, Any]) -> str:
    head = ["lambda", *(f"{s:g} s, ms" for s in growth["seconds"])]
    rows = [
        [
            f"{curve['lam']:g}",
            *(number(1000 * s) for s in curve["spent"]),
            f"{curve['exponent']:.2f}",
            f"{curve['macs_exponent']:.2f}",
        ]
        for curve in growth["curves"]
    ]
    return table([*head, "exponent of time", "of MACs"], rows)


def parts_table(rows: Rows) -> str:
    """Recognition: where the time goes, as shares."""
    parts = list(dict.fromkeys(part for row in rows for part in row["parts"]))
    head = ["search", "lambda", "frame period (ms)", "s", "RTF", *parts]
    body = [
        [
            row["search"],
            row["lam"],
            number(row["period_ms"]),
            f"{number(row['seconds'])} ({number(row['low'])} to {number(row['high'])})",
            number(row["rtf"]),
            *(f"{100 * row['parts'][p] / row['seconds']:.0f} %" for p in parts),
        ]
        for row in rows
    ]
    return table(head, body)


def training_table(rows: Rows) -> str:
    """Training: throughput and memory."""
    head = ["lambda", "frame period (ms)", "ms a step", "audio hours per hour"]
    head += ["forward", "backward", "optimizer", "peak MB"]
    body = [
        [
            f"{row['lam']:g}",
            number(row["period_ms"]),
            times(row),
            number(row["hours_per_hour"]),
            *(
                f"{100 * row['parts'][p] / row['seconds']:.0f} %"
                for p in ("forward", "backward", "optimizer")
            ),
            number(row["peak_bytes"] / 1e6),
        ]
        for row in rows
    ]
    return table(head, body)


def streaming_table(rows: Rows) -> str:
    """Streams: time of a chunk, and real-time factors."""
    head = ["lambda", "frame period (ms)", "ms a chunk", "slowest", "RTF"]
    head += ["RTF of the whole at once", "latency (ms), without computing"]
    body = [
        [
            f"{row['lam']:g}",
            number(row["period_ms"]),
            times(row),
            number(1000 * row["worst"]),
            number(row["rtf"]),
            number(row["offline"]),
            number(row["latency_ms"]),
        ]
        for row in rows
    ]
    return table(head, body)


def price_table(prices: Rows) -> str:
    """A calibration."""
    body = [
        [
            f"{price['lam']:g}",
            number(price["period_ms"]),
            number(price["macs_per_second"] / 1e9),
            number(price["rtf"]),
        ]
        for price in prices
    ]
    return table(["lambda", "frame period (ms)", "GMACs/s", "RTF"], body)
