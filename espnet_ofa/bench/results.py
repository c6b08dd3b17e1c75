"""Several processes to one number with its spread, and numbers to Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from espnet_ofa.files import write_text
from espnet_ofa.report.environment import environment

_OTHERS = ("torchaudio", "transformers", "torch-cif", "espnet")


def merge(answers: Sequence[Mapping[str, Any]], items: str) -> list[dict[str, Any]]:
    """The same items from several processes to one list.

    Numbers become medians over the processes; ``seconds`` also gets ``low`` and
    ``high``, the smallest and largest of the processes' medians (with one process:
    quartiles of its calls, as it gave them). ``worst`` is the largest of all. Ratios of
    two sides are for the caller to take, of what is merged.
    """
    return [_merge(each) for each in zip(*(a[items] for a in answers), strict=True)]


def _merge(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict):
        keys = [key for key in first if all(key in value for value in values)]
        merged = {key: _merge([value[key] for value in values]) for key in keys}
        if "seconds" in first and len(values) > 1:
            spread = [value["seconds"] for value in values]
            merged |= {"low": min(spread), "high": max(spread)}
        if "worst" in first:
            merged["worst"] = max(value["worst"] for value in values)
        return merged
    if isinstance(first, list):
        return [_merge(each) for each in zip(*values, strict=True)]
    if isinstance(first, float) and not any(v is None for v in values):
        return statistics.median(values)
    return first


def facts(**setup: Any) -> dict[str, Any]:
    """Hardware, versions, commit and how it was run."""
    versions = {}
    for package in _OTHERS:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    found = {**environment(), **versions, **setup}
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found


def save(
    out: str | Path, name: str, content: Mapping[str, Any], text: str
) -> tuple[Path, Path]:
    """Write ``name.json`` and ``name.md`` into ``out``."""
    data = write_text(Path(out, f"{name}.json"), json.dumps(content, indent=1) + "\n")
    return data, write_text(Path(out, f"{name}.md"), text)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; None shows as a dash."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join("–" if cell is None else str(cell) for cell in line) + " |"
        for line in lines
    )


def number(value: float | None, digits: int = 3) -> str | None:
    """A number with so many significant digits, never in scientific notation."""
    if value is None:
        return None
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:g}"


def times(timing: Mapping[str, Any]) -> str:
    """``12.3 (11.9 to 12.8)`` in ms."""
    middle, low, high = (
        number(1000 * timing[name]) for name in ("seconds", "low", "high")
    )
    return f"{middle} ({low} to {high})"


def page(title: str, about: Mapping[str, Any], *blocks: str) -> str:
    """A title, where it was measured, and blocks."""
    where = "\n".join(f"- {name}: `{value}`" for name, value in about.items())
    return "\n\n".join([f"# {title}", where, *(b for b in blocks if b)]) + "\n"


def roofline_lines(ceilings: Mapping[str, Any]) -> str:
    """What the machine can do, in words."""
    copies, macs = ceilings["copy_bytes_per_second"], ceilings["macs_per_second"]
    moved = ", ".join(f"{number(v / 1e9)} GB/s {k}" for k, v in copies.items())
    products = ", ".join(f"{number(v / 1e9)} GMAC/s in {k}" for k, v in macs.items())
    return (
        f"Measured ceilings. `copy_` (read and write counted): {moved}. "
        f"`linear`: {products}."
    )


def notes(lines: Sequence[str]) -> str:
    """What was left out."""
    return "\n".join(f"- {line}" for line in dict.fromkeys(lines))
