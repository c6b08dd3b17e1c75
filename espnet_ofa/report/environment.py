"""Where results were measured, in the form of ESPnet's RESULTS."""

from __future__ import annotations

import platform
import subprocess
from datetime import datetime
from importlib import metadata
from pathlib import Path


def _git(*arguments: str) -> str:
    """Output of git in the working directory, or "unknown"."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def cpu_name() -> str:
    """The processor's name as the system reports it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, str]:
    """Date, versions, commit and processor, in the order of ESPnet's RESULTS."""
    return {
        "date": datetime.now().astimezone().strftime("%a %b %d %H:%M:%S %Z %Y"),
        "python version": platform.python_version(),
        "espnet version": f"espnet {_version('espnet')}",
        "pytorch version": f"pytorch {_version('torch')}",
        "Git hash": _git("rev-parse", "HEAD"),
        "Commit date": _git("show", "-s", "--format=%cd", "HEAD"),
        "CPU": cpu_name(),
    }
