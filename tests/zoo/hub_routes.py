"""What the hub on the loopback interface answers to each call."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_card import card_errors

if TYPE_CHECKING:
    from hub_server import HubServer

USER = "user"
LFS_SUFFIXES = {".safetensors", ".pth", ".zip", ".model", ".onnx", ".npz", ".png"}
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


class HubError(Exception):
    """An answer other than 200, as the hub words it."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Repo:
    """One model repository: the files of every commit."""

    def __init__(self, name: str, private: bool) -> None:
        self.name, self.private = name, private
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.commit({}, "main")

    @property
    def head(self) -> str:
        """Hash of the last commit to ``main``."""
        return self.branches["main"]

    def commit(self, files: dict[str, bytes], branch: str) -> str:
        """Make ``files`` the head of a branch; returns the commit's hash."""
        parts = [f"{self.name} {len(self.commits)}".encode()]
        parts += [part for k in sorted(files) for part in (k.encode(), files[k])]
        sha = hashlib.sha1(b"\0".join(parts)).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def at(self, revision: str) -> str:
        """Hash of a revision: a branch or a hash."""
        revision = self.branches.get(revision, revision)
        if revision not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return revision


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: HubServer
    NAME = r"(?P<repo>[^/]+/[^/]+)"
    ROUTES = [
        ("POST", r"/api/validate-yaml", "validate_card"),
        ("POST", r"/api/repos/create", "create"),
        ("GET", r"/api/whoami-v2", "who_am_i"),
        ("GET", r"/api/models", "list_models"),
        ("POST", rf"/api/models/{NAME}/preupload/(?P<rev>[^/]+)", "plan_upload"),
        ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", "plan_blobs"),
        ("PUT", r"/blobs/(?P<oid>[0-9a-f]{64})", "put_blob"),
        ("POST", rf"/api/models/{NAME}/commit/(?P<rev>[^/]+)", "commit"),
        ("POST", rf"/api/models/{NAME}/branch/(?P<branch>[^/]+)", "create_branch"),
        ("GET", rf"/api/models/{NAME}/tree/(?P<rev>[^/]+)", "tree"),
        ("GET", rf"/api/models/{NAME}(/revision/(?P<rev>[^/]+))?", "info"),
        ("HEAD", rf"/{NAME}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
        ("GET", rf"/{NAME}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
    ]

    def log_message(self, format, *args) -> None:
        """Silent."""

    def handle_any(self) -> None:
        """Find the route, answer, and turn a :class:`HubError` into its response."""
        split = urlsplit(self.path)
        self.query = parse_qs(split.query)
        try:
            for method, pattern, name in self.ROUTES:
                match = re.fullmatch(pattern, unquote(split.path))
                if match and method == self.command:
                    answer = getattr(self, name)(**match.groupdict())
                    if answer is not None:
                        self.reply(200, json.dumps(answer).encode())
                    return
            raise HubError(404, f"no such call: {self.command} {split.path}")
        except HubError as e:
            list(self.body())  # the connection is used again
            headers = {"X-Error-Message": e.message}
            if e.code is not None:
                headers["X-Error-Code"] = e.code
            found = {"error": e.message, "errors": [{"message": e.message}]}
            plain = self.headers.get("Accept") == "text/plain"
            text = e.message if plain else json.dumps(found)
            self.reply(e.status, text.encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def reply(self, status: int, data: bytes, headers: dict | None = None) -> None:
        """Send a response, or the first part of one where the test cuts it."""
        ranged = self.headers.get("Range", "")
        self.server.requests.append((self.command, self.path, ranged, status))
        self.send_response(status)
        headers = {"Content-Type": "application/json", **(headers or {})}
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        for name, cuts in self.server.cut_downloads.items():
            if unquote(urlsplit(self.path).path).endswith(f"/{name}") and cuts:
                data = data[: cuts.pop(0)]
                self.close_connection = True
        self.wfile.write(data)

    def body(self) -> Iterator[bytes]:
        """Content of the request in pieces, chunked or not; once."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            del self.headers["Transfer-Encoding"]
            return
        left = int(self.headers.get("Content-Length", 0))
        del self.headers["Content-Length"]
        while left and (piece := self.rfile.read(min(left, 1 << 16))):
            left -= len(piece)
            yield piece

    def json(self) -> dict:
        """The request's JSON."""
        return json.loads(b"".join(self.body()))

    def user(self, needed: bool = True) -> str | None:
        """Who asks; refuses a wrong token, and none where one is needed."""
        given = self.headers.get("Authorization")
        if given == f"Bearer {self.server.token}":
            return USER
        if given is not None:
            raise HubError(401, "Invalid credentials in Authorization header")
        if needed:
            raise HubError(401, "Invalid username or password.")
        return None

    def find(self, name: str, write: bool = False) -> Repo:
        """The repository, for those who may see it."""
        user = self.user(needed=write)
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and user is None):
            status = 404 if user else 401
            raise HubError(status, "Repository not found", "RepoNotFound")
        if write and name.split("/")[0] != user:
            raise HubError(403, f"You don't have the rights to write to {name}")
        return repo

    # --- what the routes answer -----------------------------------------------------

    def who_am_i(self) -> dict:
        return {"type": "user", "name": self.user(), "orgs": []}

    def validate_card(self) -> dict:
        """The hub's own checks on a card's metadata."""
        match = FRONT_MATTER.match(self.json()["content"])
        try:
            card = yaml.safe_load(match[1]) if match else {}
        except yaml.YAMLError as e:
            raise HubError(400, f"invalid YAML: {e}") from e
        errors = list(card_errors(card))
        if errors:
            raise HubError(400, "; ".join(errors))
        self.server.cards.append(card)
        empty = [{"message": "empty or missing yaml metadata in repo card"}]
        return {"errors": [], "warnings": [] if card else empty}

    def create(self) -> dict:
        asked = self.json()
        owner = asked.get("organization") or self.user()
        name = f"{owner}/{asked['name']}"
        if owner != self.user():
            raise HubError(403, f"You don't have the rights to create under {owner}")
        with self.server.lock:
            if name in self.server.repos:
                raise HubError(409, "You already created this model repo")
            private = asked.get("visibility") == "private" or asked.get("private")
            self.server.repos[name] = Repo(name, bool(private))
        return {"url": f"{self.server.url}/{name}", "name": name, "id": name}

    def create_branch(self, repo: str, branch: str) -> dict:
        found = self.find(repo, write=True)
        start = found.at(self.json().get("startingPoint", "main"))
        if branch in found.branches:
            raise HubError(409, f"Reference already exists: {branch}")
        found.branches[branch] = start
        return {}

    def list_models(self) -> list[dict]:
        user = self.user(needed=False)
        author = self.query.get("author", [None])[0]
        return [
            {"id": name, "modelId": name, "private": repo.private, "tags": []}
            for name, repo in sorted(self.server.repos.items())
            if author in (None, name.split("/")[0]) and (user or not repo.private)
        ]

    def info(self, repo: str, rev: str | None) -> dict:
        found = self.find(repo)
        sha = found.at(rev or "main")
        files = [{"rfilename": path} for path in sorted(found.commits[sha])]
        about = {"id": repo, "modelId": repo, "sha": sha, "private": found.private}
        return {**about, "siblings": files, "tags": []}

    def tree(self, repo: str, rev: str) -> list[dict]:
        found = self.find(repo)
        rows = []
        for path, data in sorted(found.commits[found.at(rev)].items()):
            row = {"type": "file", "path": path, "size": len(data), "oid": oid(data)}
            if Path(path).suffix in LFS_SUFFIXES:
                sha = hashlib.sha256(data).hexdigest()
                row["lfs"] = {"oid": sha, "size": len(data), "pointerSize": 130}
            rows.append(row)
        return rows

    def resolve(self, repo: str, rev: str, path: str) -> None:
        found = self.find(repo)
        sha = found.at(rev)
        if path not in found.commits[sha]:
            raise HubError(404, "Entry not found", "EntryNotFound")
        data = found.commits[sha][path]
        lfs = Path(path).suffix in LFS_SUFFIXES
        etag = hashlib.sha256(data).hexdigest() if lfs else oid(data)
        data = self.server.altered.get(path, bytes)(data)
        headers = {"Content-Type": "application/octet-stream"}
        headers |= {"ETag": f'"{etag}"', "X-Repo-Commit": sha}
        headers |= {"Accept-Ranges": "bytes"}
        ranged = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if ranged is None:
            return self.reply(200, data, headers)
        start = int(ranged[1])
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.reply(206, data[start:], headers)

    def plan_upload(self, repo: str, rev: str) -> dict:
        found = self.find(repo, write=True)
        files = found.commits[found.at(rev)]
        plan = []
        for asked in self.json()["files"]:
            path = asked["path"]
            mode = "lfs" if Path(path).suffix in LFS_SUFFIXES else "regular"
            row = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            if path in files:
                data = files[path]
                lfs = hashlib.sha256(data).hexdigest()
                row["oid"] = lfs if mode == "lfs" else oid(data)
            plan.append(row)
        return {"files": plan}

    def plan_blobs(self, repo: str) -> dict:
        self.find(repo, write=True)
        rows = []
        for asked in self.json()["objects"]:
            href = f"{self.server.url}/blobs/{asked['oid']}"
            there = asked["oid"] in self.server.blobs
            rows.append(asked if there else {**asked, "actions": upload_to(href)})
        return {"transfer": "basic", "objects": rows}

    def put_blob(self, oid: str) -> None:
        cut = self.server.cut_uploads.pop(0) if self.server.cut_uploads else None
        data = b""
        for piece in self.body():
            data += piece
            if cut is not None and len(data) >= cut:
                self.server.requests.append(("PUT", self.path, "", 0))
                self.close_connection = True
                return
        if hashlib.sha256(data).hexdigest() != oid:
            raise HubError(400, "content does not match its SHA-256")
        self.server.blobs[oid] = data
        self.reply(200, b"")

    def commit(self, repo: str, rev: str) -> dict:
        found = self.find(repo, write=True)
        with self.server.lock:
            files = dict(found.commits[found.at(rev)])
            for line in b"".join(self.body()).splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    if value["oid"] not in self.server.blobs:
                        raise HubError(400, f"no such LFS object: {value['oid']}")
                    files[value["path"]] = self.server.blobs[value["oid"]]
                elif item["key"] == "deletedFile":
                    files.pop(value["path"], None)
            sha = found.commit(files, rev)
        return {"commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "commitOid": sha}


def oid(data: bytes) -> str:
    """Git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def upload_to(href: str) -> dict:
    """LFS action for a plain PUT."""
    return {"upload": {"href": href, "header": {}}}
