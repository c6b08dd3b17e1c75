"""Writing a file so that nobody ever reads half of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path


def write_file(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it.

    Args:
        path: the file to create or replace; missing folders are made.
        write: called with the temporary path, which keeps the suffix of ``path``.

    Returns:
        ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text; see :func:`write_file`."""
    return write_file(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def no_room(error: BaseException) -> bool:
    """Whether writing failed because a disk, or one's share of it, is full."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full
