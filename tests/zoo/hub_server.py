"""A hub on the loopback interface: real HTTP for the real huggingface_hub client.

Speaks what ``create_repo``, ``upload_folder``, ``list_models``, ``list_repo_files``,
``snapshot_download`` and ``whoami`` ask for, and misbehaves on request:

    with HubServer() as hub:            # its one user is called ``user``
        env = hub.environment(home)     # for a subprocess with an empty cache
        hub.cut_downloads["model.safetensors"] = [1000, 2000]  # after so many bytes
        hub.cut_uploads = [None, 100]   # the second upload, after so many bytes
        hub.altered["exp/model.pth"] = lambda data: data[:-1]
        hub.files("user/model")         # {path: bytes} at the head
        hub.requests                    # (method, path, Range header or "", status)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path

from hub_routes import Handler, Repo

TOKEN = "hf_loopback"


def close_session() -> None:
    """Drop this process's connections; the next call reads the client's settings."""
    from huggingface_hub import utils

    older = not hasattr(utils, "close_session")  # before 1.0
    (utils.reset_sessions if older else utils.close_session)()


class HubServer(ThreadingHTTPServer):
    """The server; a context manager that runs it in a thread."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.token = TOKEN
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}  # uploaded LFS objects by SHA-256
        self.requests: list[tuple[str, str, str, int]] = []
        self.cut_downloads: dict[str, list[int]] = {}
        self.cut_uploads: list[int | None] = []
        self.altered: dict[str, Callable[[bytes], bytes]] = {}
        self.cards: list[dict] = []  # metadata that validate-yaml accepted
        self.lock = threading.Lock()

    def __enter__(self) -> HubServer:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Variables that point a client here, all its caches below ``home``."""
        env = {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HOME": str(home / "hf"),
            "HOME": str(home),
            "NO_PROXY": "127.0.0.1",
        }
        return env if token is None else {**env, "HF_TOKEN": token}

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        """What a repository holds at the head of a branch."""
        return self.repos[repo].commits[self.repos[repo].branches[branch]]

    def handle_error(self, request, client_address) -> None:
        """Silent: the tests cut connections on purpose."""
