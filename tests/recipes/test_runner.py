"""run.pl and slurm.pl: arrays of jobs, logs, failures."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

UTILS = Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/ofa1/utils"
sys.path.insert(0, str(UTILS))
import jobs  # noqa: E402  # pyright: ignore[reportMissingImports]

# Runs what it is given, as many times as --array says: enough of Slurm for one machine.
SBATCH = r"""#!/usr/bin/env bash
set -u
echo "$@" >"${SBATCH_ARGUMENTS}"
script=$(cat) first=1 last=1 log=""
while [ $# -gt 0 ]; do
    case $1 in
        --array) last=${2#*-} last=${last%\%*} first=${2%%-*}; shift ;;
        --output) log=$2; shift ;;
    esac
    shift
done
worst=0
for ((i = first; i <= last; i++)); do
    SLURM_ARRAY_TASK_ID=$i bash <<<"${script}" >"${log/\%a/$i}" 2>&1 || worst=$?
done
echo "Submitted batch job 17"
exit ${worst}
"""


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """The arguments sbatch was called with, after the call."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(SBATCH)
    (folder / "sbatch").chmod(0o755)
    arguments = tmp_path / "arguments"
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SBATCH_ARGUMENTS", str(arguments))
    return arguments


def run(program, *words, cwd):
    command = [str(UTILS / program), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("program", ["run.pl", "slurm.pl"])
def test_array(program, tmp_path, sbatch):
    done = run(
        program, "JOB=1:3", "log/a.JOB.log", "bash", "-c",
        'echo "job=JOB, $1"; echo x >out.JOB', "-", "it's $HOME  JOB", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for n in (1, 2, 3):
        log = (tmp_path / f"log/a.{n}.log").read_text()
        assert f"job={n}, it's $HOME  {n}" in log
        assert (tmp_path / f"out.{n}").exists()


@pytest.mark.parametrize("program", ["run.pl", "slurm.pl"])
def test_failure_shows_the_end_of_the_log(program, tmp_path, sbatch):
    script = 'for i in $(seq 100); do echo "line $i"; done; exit 5'
    done = run(program, "a.log", "bash", "-c", script, cwd=tmp_path)
    assert done.returncode == 1
    assert "line 100" in done.stderr and "line 50\n" not in done.stderr
    assert "a.log" in done.stderr and "status 5" in done.stderr


def test_one_of_many_fails(tmp_path):
    done = run(
        "run.pl", "JOB=1:3", "a.JOB.log", "bash", "-c",
        "echo I am JOB; [ JOB != 2 ] || exit 9", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "1 of 3 jobs failed" in done.stderr
    assert "I am 2" in done.stderr and "I am 1" not in done.stderr
    assert "I am 3" in (tmp_path / "a.3.log").read_text()  # the others finish


def test_command_that_does_not_exist(tmp_path):
    done = run("run.pl", "a.log", "no-such-program", cwd=tmp_path)
    assert done.returncode == 1
    assert "no-such-program" in done.stderr and "status 127" in done.stderr


def test_max_jobs_run(tmp_path):
    script = "mkdir busy && sleep 0.1 && rmdir busy"  # fails when two run at once
    done = run(
        "run.pl", "--max-jobs-run", "1", "JOB=1:3", "a.JOB.log", "bash", "-c", script,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words", [[], ["a.log"], ["JOB=1:2", "a.log", "true"], ["JOB=0:2", "a.JOB", "true"]]
)
def test_usage(words, tmp_path):
    done = run("run.pl", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Usage" in done.stderr


def test_end_of_the_runner_ends_the_job(tmp_path):
    command = [
        str(UTILS / "run.pl"),
        "a.log",
        "bash",
        "-c",
        "echo $$ >pid; exec sleep 60",
    ]
    with subprocess.Popen(command, cwd=tmp_path) as runner:
        pid = tmp_path / "pid"
        while not (pid.exists() and pid.read_text().strip()):
            time.sleep(0.02)
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(10) == 143
    job = int(pid.read_text())
    for _ in range(100):
        try:
            os.kill(job, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{job}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the job is still running")


def test_slurm_options(tmp_path, sbatch):
    done = run(
        "slurm.pl", "--gpu", 2, "--num_threads", 4, "--max_jobs_run", 2, "JOB=1:3",
        "a.JOB.log", "true", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = sbatch.read_text().split()
    for words in ("--gres=gpu:2 -c 2", "--cpus-per-task 4", "--array 1-3%2", "--wait"):
        assert words in " ".join(said)


@pytest.mark.parametrize("default", ["default gpu=0\n", ""])
def test_slurm_gives_the_cpus_that_were_asked_for(tmp_path, sbatch, default):
    config = tmp_path / "conf/slurm.conf"
    config.parent.mkdir()
    config.write_text(  # as ESPnet writes it
        f"command sbatch --export=PATH\n{default}option gpu=0 -p cpu\n"
        "option num_threads=* --cpus-per-task $0\n"
        "option num_threads=1 --cpus-per-task 1\n"
        "option gpu=* -p gpu --gres=gpu:$0 -c $0\n"
    )
    options = ("--num_threads", 5, "--gpu", 1)  # launch's order
    assert run("slurm.pl", *options, "a.log", "true", cwd=tmp_path).returncode == 0
    said = sbatch.read_text().split()
    assert said[said.index("-c") :][:4] == ["-c", "1", "--cpus-per-task", "5"]


def test_slurm_config(tmp_path, sbatch):
    config = tmp_path / "conf/slurm.conf"
    config.parent.mkdir()
    config.write_text(
        "# As ESPnet writes it\ncommand sbatch --export=PATH\ndefault gpu=0\n"
        "option gpu=0 -p cpu\noption gpu=* -p gpu --gres=gpu:$0 -c $0 # cores\n"
    )
    assert run("slurm.pl", "a.log", "true", cwd=tmp_path).returncode == 0
    assert "--export=PATH -p cpu" in sbatch.read_text()
    assert run("slurm.pl", "--gpu", 3, "a.log", "true", cwd=tmp_path).returncode == 0
    assert "-p gpu --gres=gpu:3 -c 3" in sbatch.read_text()
    done = run("slurm.pl", "--fans", 3, "a.log", "true", cwd=tmp_path)
    assert done.returncode == 1 and "--fans 3" in done.stderr


def test_progress_is_shown(tmp_path):
    script = (
        r"printf ' 10%%|#  | 1/10\r 20%%|## | 2/10\r' >&2; echo secret; "
        'echo "x (trainer:394) INFO: 3epoch results: [train] loss_masked=9, loss=4.73, '
        'time=1, [valid] acc=0.1, loss=4.33, time=2, total_count=8"; '
        'echo "y (trainer:324) INFO: 4/6epoch started. Estimated time to finish: 9 s"'
    )
    done = run("run.pl", "a.log", "bash", "-c", script, cwd=tmp_path)
    shown = done.stdout
    assert "epoch 3: loss 4.73 in training, 4.33 in validation" in shown
    assert "4/6epoch started. Estimated time to finish: 9 s" in shown
    assert "20%" in shown and "10%" not in shown  # only where the bar got to
    assert "secret" not in shown


def test_decoding_progress_is_shown():
    line = "2026 (decoding:215) INFO: test: 64 of 300 utterances, 20 s to go"
    assert jobs.brief(line) == "test: 64 of 300 utterances, 20 s to go"


def test_ordinary_lines_are_not_shown():
    assert jobs.brief("2epoch:train:1-50batch: loss=3") is None
    assert jobs.brief("WARNING: something") is None
