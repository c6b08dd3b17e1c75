"""What run.pl and slurm.pl share: Kaldi's command line, logs, and what is shown.

    run.pl [--gpu N] [--num_threads N] [--max_jobs_run N] ... [JOB=1:N] LOG COMMAND...

ESPnet's launcher tells schedulers apart by these two names, and recipes call them the
same way whether they are these programs or Kaldi's.
"""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

TAIL_LINES = 20
POLL_SECONDS = 1.0
# Progress bars, and what ESPnet's trainer and our decoding say now and then.
_WORTH_SEEING = re.compile(
    r"\d+%\|.*\||epoch started|epoch results|lambda [0-9own.]+[,:]|\d+ s to go"
)
_EPOCH = re.compile(r"(\d+)epoch results: \[train\] (.*?), \[valid\] (.*)")
_LOSS = re.compile(r"\bloss=(\S+?),")


@dataclass
class Request:
    """A parsed command line; ``name`` is ``JOB`` of ``JOB=1:4``, empty without."""

    options: dict[str, str]
    log: str
    command: list[str]
    name: str = ""
    numbers: list[int] = field(default_factory=list)

    def log_of(self, number: int | str) -> Path:
        """Log file of one job."""
        return Path(self.log.replace(self.name, str(number)) if self.name else self.log)

    def command_of(self, number: int | str) -> list[str]:
        """Command of one job."""
        if not self.name:
            return self.command
        return [word.replace(self.name, str(number)) for word in self.command]


def parse(argv: list[str]) -> Request:
    """Split a Kaldi-style command line.

    Raises:
        SystemExit: with status 2 and the reason.
    """
    words = list(argv)
    options: dict[str, str] = {}
    while words and words[0].startswith("-"):
        option = words.pop(0).lstrip("-").replace("-", "_")
        if not words:
            _usage(f"--{option} needs a value")
        options[option] = words.pop(0)
    name, numbers = "", []
    if words and (found := re.fullmatch(r"([A-Z]+)=(\d+)(?::(\d+))?", words[0])):
        words.pop(0)
        first, last = int(found[2]), int(found[3] or found[2])
        if not 1 <= first <= last:
            _usage(f"bad job range {found[0]}")
        name, numbers = found[1], list(range(first, last + 1))
    if len(words) < 2:
        _usage("a log file and a command are needed")
    if name and len(numbers) > 1 and name not in words[0]:
        _usage(f"the log file must contain {name}: {words[0]}")
    return Request(options, words[0], words[1:], name, numbers)


def _usage(problem: str) -> None:
    program = Path(sys.argv[0]).name
    print(
        f"{program}: {problem}\nUsage: {program} [options] [JOB=1:N] LOG COMMAND...",
        file=sys.stderr,
    )
    raise SystemExit(2)


def brief(line: str) -> str | None:
    """What to show of a log line; None for most lines."""
    if not _WORTH_SEEING.search(line):
        return None
    if epoch := _EPOCH.search(line):
        losses = [_LOSS.search(part + ",") for part in epoch.groups()[1:]]
        train, valid = (found[1] if found else "?" for found in losses)
        return f"epoch {epoch[1]}: loss {train} in training, {valid} in validation"
    return re.sub(r"^.*(INFO|WARNING): ", "", line).strip()[:160]


class Follower:
    """Shows what is worth seeing of a growing log, as a context manager."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._position = 0
        self._rest = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._show()

    def _run(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            self._show()

    def _show(self) -> None:
        try:
            with open(self.log, encoding="utf-8", errors="replace", newline="") as f:
                f.seek(self._position)
                text = f.read()
                self._position = f.tell()
        except FileNotFoundError:
            return
        *lines, self._rest = re.split(r"[\r\n]", self._rest + text)
        shown = [text for line in lines if (text := brief(line))]
        # A progress bar that moved several times since is told once.
        bars = [text for text in shown if "%|" in text]
        for text in shown:
            if text not in bars[:-1]:
                print(f"    {text}", flush=True)


def header(command: str) -> str:
    """First lines of a log."""
    return f"# {command}\n# Started at {datetime.now():%Y-%m-%d %H:%M:%S}\n#\n"


def report_failure(log: Path, status: int | str) -> None:
    """Say what failed and show the end of its log, on stderr."""
    program = Path(sys.argv[0]).name
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        lines = ["(no log file)"]
    tail = "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])
    print(
        f"{program}: failed with {status}; the end of {log}:\n{tail}", file=sys.stderr
    )
