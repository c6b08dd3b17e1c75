"""The stages' shell functions, run in a folder of their own."""

import os
import subprocess
from pathlib import Path

import pytest

STAGES = Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/ofa1/stages"
COMMON = STAGES / "common.sh"
DEFAULTS = {"OFA_TEMPLATE": str(STAGES.parent), "overwrite": "false"}


@pytest.fixture
def shell(tmp_path):
    """Run a script after common.sh, in a folder with a config."""
    (tmp_path / "conf.yaml").write_text("lr: 1\n")

    def run(script, **env):
        return subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n. {COMMON}\n{script}"],
            cwd=tmp_path,
            env={**os.environ, **DEFAULTS, **env},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def recipe(tmp_path, shell):
    """Run stages of ofa.sh with an environment of options, on small files."""

    def write(name, text, mode=0o644):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(script, **env):
        files = (
            STAGES / f"{name}.sh" for name in ("jobs", "data", "ssl", "asr", "results")
        )
        sourced = "".join(f". {path}\n" for path in files)
        return shell(f"{sourced}{script}", **env)

    return write, run
