"""A hub on the loopback interface, with this process's client pointed at it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from espnet_ofa.checksums import write_checksums
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig

sys.path.insert(0, str(Path(__file__).parent))  # as pytest's older import mode did

from hub_server import HubServer, close_session  # noqa: E402
from tiny import UPSTREAM  # noqa: E402

FILE = "/{repo_id}/resolve/{revision}/{filename}"


@contextmanager
def running_hub(home: Path) -> Iterator[HubServer]:
    """An empty hub; huggingface_hub in this process talks to it, its caches empty."""
    from huggingface_hub import constants, file_download

    template = "HUGGINGFACE_CO_URL_TEMPLATE"

    with HubServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment(home).items():
            if name.startswith("HF_"):
                patch.setenv(name, value)
        # The client read its environment when it was imported. Older ones keep the
        # template in two places, and know no Xet.
        patch.setattr(constants, "ENDPOINT", server.url)
        for module in (constants, file_download):
            patch.setattr(module, template, server.url + FILE, raising=False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        patch.setattr(constants, "HF_HOME", str(home / "hf"))
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hf" / "hub"))
        yield server
        close_session()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """A hub of one test's own."""
    with running_hub(tmp_path / "home") as server:
        yield server


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A hub that the tests of a file share."""
    with running_hub(tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """Runs code in a fresh interpreter; returns what it printed, or fails."""

    def run(code: str, env: dict[str, str], *arguments: str, cwd: Path) -> str:
        result = subprocess.run(
            [os.environ.get("ZOO_PYTHON", sys.executable), "-c", code, *arguments],
            env={**os.environ, **env},
            cwd=cwd,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    return run


@pytest.fixture
def upstream_folder(tmp_path: Path) -> Path:
    """A packed upstream with random weights."""
    torch.manual_seed(1)
    folder = tmp_path / "upstream"
    OFAUpstream(UpstreamConfig.from_dict(UPSTREAM)).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    write_checksums(folder)
    return folder
