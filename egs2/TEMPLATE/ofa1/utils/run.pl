#!/usr/bin/env python3
"""Run commands on this machine, output to log files; see jobs.py for the options.

The name and the options are those of Kaldi's run.pl, whose place this takes.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jobs


def run_one(request, number):
    """Run one job; returns its exit status."""
    log = request.log_of(number)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = request.command_of(number)
    started = time.monotonic()
    with open(log, "w", encoding="utf-8") as out:
        out.write(jobs.header(shlex.join(command)))
        out.flush()
        try:
            with STARTING:
                process = subprocess.Popen(command, stdout=out, stderr=out)
                RUNNING.append(process)
        except OSError as error:
            out.write(f"{error}\n")
            status = 127
        else:
            status = process.wait()
        seconds = time.monotonic() - started
        out.write(f"# Ended with status {status} after {seconds:.0f} s\n")
    return status


def stop(*_):
    """Take the jobs along when this program is ended."""
    with STARTING:  # no job is missed, and none begins any more
        for process in RUNNING:
            if process.poll() is None:
                process.terminate()
        os._exit(143)


RUNNING = []
STARTING = threading.Lock()


def main():
    """Run all jobs; exit status 1 if one failed."""
    request = jobs.parse(sys.argv[1:])
    numbers = request.numbers or [1]
    at_once = int(request.options.get("max_jobs_run", len(numbers)))
    signal.signal(signal.SIGTERM, stop)
    with (
        jobs.Follower(request.log_of(numbers[0])),
        ThreadPoolExecutor(max(min(at_once, len(numbers)), 1)) as pool,
    ):
        statuses = list(pool.map(lambda n: run_one(request, n), numbers))
    failed = {n: s for n, s in zip(numbers, statuses, strict=True) if s != 0}
    if failed:
        first, status = next(iter(failed.items()))
        if len(numbers) > 1:
            print(
                f"run.pl: {len(failed)} of {len(numbers)} jobs failed", file=sys.stderr
            )
        jobs.report_failure(request.log_of(first), f"status {status}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
