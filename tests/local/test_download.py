"""Downloading from a server on this machine: resuming, verifying, unpacking."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import download
from download import ARCHIVES, Archive, fetch_corpus
from fetch import FetchError, unpack
from fetch import download as fetch_file


def make_archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = make_archive(
    {
        "LibriSpeech/LICENSE.TXT": b"CC BY 4.0",
        "LibriSpeech/dev-x/1/2/1-2.trans.txt": b"1-2-0000 WORDS\n",
    }
)
MD5 = f"md5:{hashlib.md5(ARCHIVE).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves ARCHIVE at any address and remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.break_after: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/dev-x.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = int(re.findall(r"\d+", wanted)[0]) if wanted else 0
        if start >= len(ARCHIVE):
            self.send_error(416)
            return
        body = ARCHIVE[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.break_after])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server():
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def fetch(archive: Archive, into: Path, *, verify: bool = True) -> None:
    # as AN4's, which has both of its parts
    fetch_corpus([archive, archive], into, verify=verify, keep_archives=False)


def test_download_verify_unpack_once(server, tmp_path):
    archive = Archive(server.url, MD5)
    fetch(archive, tmp_path)
    text = tmp_path / "LibriSpeech" / "dev-x" / "1" / "2" / "1-2.trans.txt"
    assert text.read_text() == "1-2-0000 WORDS\n"
    assert (tmp_path / "LibriSpeech" / "LICENSE.TXT").is_file()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"LibriSpeech", ".dev-x.done"}
    fetch(archive, tmp_path)
    assert server.ranges == [None]


def test_broken_connection_is_resumed(server, tmp_path):
    path = tmp_path / "x.tar.gz"
    server.break_after = 100
    with pytest.raises(FetchError, match="run again to go on"):
        fetch_file(server.url, path, MD5)
    assert not path.exists() and path.with_name("x.tar.gz.part").stat().st_size == 100
    server.break_after = None
    fetch_file(server.url, path, MD5)
    assert path.read_bytes() == ARCHIVE
    assert server.ranges == [None, "bytes=100-"]


def test_a_whole_part_is_taken_as_it_is(server, tmp_path):
    path = tmp_path / "x.tar.gz"
    path.with_name("x.tar.gz.part").write_bytes(ARCHIVE)
    fetch_file(server.url, path, MD5)
    assert path.read_bytes() == ARCHIVE


def test_wrong_checksum(server, tmp_path):
    with pytest.raises(FetchError, match=r"md5 is .*, expected 000: remove the file"):
        fetch(Archive(server.url, "md5:000"), tmp_path)
    assert not (tmp_path / "LibriSpeech").exists()


def test_unknown_checksum_must_be_waived(server, tmp_path):
    archive = Archive(server.url, None)
    with pytest.raises(FetchError, match="--checksum none"):
        fetch(archive, tmp_path)
    fetch(archive, tmp_path, verify=False)
    assert (tmp_path / "LibriSpeech" / "dev-x").is_dir()


def test_no_network_points_to_a_local_copy(tmp_path):
    with pytest.raises(FetchError, match="--corpus_dir"):
        fetch_file("http://127.0.0.1:9/x.tar.gz", tmp_path / "x.tar.gz", None)


def test_damaged_or_hostile_archives_leave_nothing(tmp_path):
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(ARCHIVE[:-60])
    with pytest.raises(FetchError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "a")
    archive.write_bytes(make_archive({"../escaped": b"!"}))
    with pytest.raises(FetchError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_an_archive_of_a_corpus_has_files_and_folders_only(tmp_path, kind):
    archive, into = tmp_path / "x.tar", tmp_path / "a"
    with tarfile.open(archive, "w") as tar:
        for name, type_ in (("x", tarfile.DIRTYPE), ("x/y", kind)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = type_, "../../outside"
            tar.addfile(info)
    with pytest.raises(FetchError, match="x/y is neither a file nor a folder"):
        unpack(archive, into)
    assert list(into.iterdir()) == []


def run(*options: str) -> int:
    return download.main(["--corpus", *options])


def test_a_copy_is_used_where_there_is_one(make_corpus, tmp_path, capsys):
    corpus = make_corpus("dev-clean-2")
    options = ("mini_librispeech", "--parts", "dev-clean-2", "--corpus_dir")
    assert run(*options, str(corpus)) == 0
    assert capsys.readouterr().out == f"{corpus}\n"
    assert run(*options, str(tmp_path / "no")) == 1
    assert "no such directory" in capsys.readouterr().err
    assert run(*options, str(corpus / "dev-clean-2" / "19")) == 1
    assert "dev-clean-2 is not in" in capsys.readouterr().err


def test_a_copy_may_have_another_part(make_corpus, capsys):
    corpus = make_corpus("dev-clean")
    options = ("mini_librispeech", "--corpus_dir", str(corpus), "--parts")
    assert run(*options, "dev-clean-2|dev-clean") == 0
    assert run(*options, "dev-clean-2") == 1


def test_unknown_part(tmp_path, capsys):
    where = str(tmp_path)
    assert run("librispeech", "--parts", "train-x", "--download_dir", where) == 1
    assert "no part train-x" in capsys.readouterr().err


def test_every_known_archive_can_be_verified():
    lengths = {"md5": 32, "sha256": 64}
    for archives in ARCHIVES.values():
        for archive in archives.values():
            algorithm, _, value = (archive.checksum or "").partition(":")
            assert re.fullmatch(rf"[0-9a-f]{{{lengths[algorithm]}}}", value)
