#!/usr/bin/env python3
"""Submit commands to Slurm and wait for them; see jobs.py for the options.

The name, the options and the config file (conf/slurm.conf) are those of Kaldi's
slurm.pl, whose place this takes.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import jobs

DEFAULT_CONFIG = """
command sbatch --export=ALL
option name=* --job-name $0
option time=* --time $0
option mem=* --mem-per-cpu $0
option mem=0
option num_threads=* --cpus-per-task $0
option num_nodes=* --nodes $0
default gpu=0
option gpu=0
option gpu=* --gres=gpu:$0 -c $0
"""


def read_config(options):
    """sbatch and its options, from conf/slurm.conf or the file that --config names."""
    path = Path(options.pop("config", "conf/slurm.conf"))
    text = path.read_text(encoding="utf-8") if path.is_file() else DEFAULT_CONFIG
    command, rules, values = ["sbatch"], {}, {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        kind, rest = words[0], words[1:]
        if kind == "command":
            command = rest
        elif kind == "default":
            name, _, value = rest[0].partition("=")
            values[name] = value
        elif kind == "option":
            rules[rest[0]] = rest[1:]
        else:
            raise SystemExit(f"slurm.pl: {path}: cannot read {line!r}")
    values.update(options)
    # ESPnet's rule for --gpu asks for a CPU per GPU with -c. sbatch takes the last word:
    # that must be --num_threads, wherever it was given.
    if "num_threads" in values:
        values["num_threads"] = values.pop("num_threads")
    for name, value in values.items():
        rule = rules.get(f"{name}={value}", rules.get(f"{name}=*"))
        if rule is None:
            raise SystemExit(f"slurm.pl: --{name} {value}: no such option in {path}")
        command = command + [word.replace("$0", value) for word in rule]
    return command


def quote(word, name):
    """A word for the shell, the number of the array's job in place of ``name``."""
    parts = word.split(name) if name else [word]
    if len(parts) == 1:
        return shlex.quote(word)
    return '"${SLURM_ARRAY_TASK_ID}"'.join(shlex.quote(p) if p else "" for p in parts)


def main():
    """Submit and wait; exit status 1 if a job failed."""
    request = jobs.parse(sys.argv[1:])
    at_once = request.options.pop("max_jobs_run", None)
    submit = [*read_config(dict(request.options)), "--wait"]
    numbers = request.numbers or [1]
    logs = [request.log_of(number) for number in numbers]
    logs[0].parent.mkdir(parents=True, exist_ok=True)
    for log in logs:  # an old log must not be followed
        log.unlink(missing_ok=True)
    if request.name:
        array = f"{numbers[0]}-{numbers[-1]}" + (f"%{at_once}" if at_once else "")
        submit += ["--array", array, "--output", str(request.log_of("%a"))]
    else:
        submit += ["--output", request.log]
    script = f"#!/usr/bin/env bash\ncd {shlex.quote(str(Path.cwd()))} || exit 1\n"
    script += " ".join(quote(word, request.name) for word in request.command) + "\n"
    with jobs.Follower(logs[0]):
        done = subprocess.run(submit, input=script, text=True, stdout=subprocess.PIPE)
    if done.returncode != 0:
        said = re.sub(r"\s+", " ", done.stdout).strip()
        jobs.report_failure(logs[0], f"status {done.returncode} ({said})")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
