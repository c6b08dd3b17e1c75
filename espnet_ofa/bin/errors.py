"""How a program ends that cannot do what it was asked for."""

from __future__ import annotations

import dis
import functools
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_FRAME = re.compile(r'File "(.+)", line \d+, in .*\n\s+(.*)')


def one_line(main: Callable[..., None]) -> Callable[..., None]:
    """A ``main`` that says what is wrong in one line, with exit status 1.

    Only as a program: called with arguments, from Python, it raises. What is neither
    the system's error nor raised by a statement of ours is a fault of the code, and
    keeps its traceback.
    """

    @functools.wraps(main)
    def program(cmd: Sequence[str] | None = None) -> None:
        try:
            main(cmd)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            if cmd is not None or not _explained(error):
                raise
            logging.debug("where it was found:", exc_info=True)
            raise SystemExit(f"Error: {_message(error)}") from error

    return program


def _explained(error: Exception) -> bool:
    if isinstance(error, NotImplementedError):
        return False
    if isinstance(error, ModuleNotFoundError):  # an optional package
        return not (error.name or "").startswith(_PACKAGE.name)
    return isinstance(error, OSError) or _ours(error)


def _ours(error: BaseException) -> bool:
    """Whether a ``raise`` in this package made it, not something that it called."""
    if error.__traceback__ is None:
        return False
    remote = getattr(error.__cause__, "tb", None)
    if isinstance(remote, str):  # a process of a pool found it: its traceback is text
        path, line = _FRAME.findall(remote)[-1]
        return line.startswith("raise ") and Path(path).is_relative_to(_PACKAGE)
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    raised = code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and Path(code.co_filename).is_relative_to(_PACKAGE)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
