"""Download a file resumably, verify it, unpack it; each step all or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60


class FetchError(RuntimeError):
    """A download failed or is not what it should be."""


def download(url: str, path: Path, checksum: str | None) -> None:
    """Downloads ``url`` to ``path``; goes on where an earlier try broke off.

    Args:
        url: http(s) or file address.
        path: an existing file is verified and kept; a partial one is ``path.part``.
        checksum: ``algorithm:hex``, or None to verify nothing.

    Raises:
        FetchError: no connection, or a wrong checksum.
    """
    if path.exists():
        verify(path, checksum)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        _transfer(url, part)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise FetchError(
            f"{url}: download failed ({reason}); run again to go on where it stopped, "
            "or give the path of a copy with --corpus_dir"
        ) from error
    verify(part, checksum)
    os.replace(part, path)


def _transfer(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the part is whole
            return
        raise
    with response:
        resumed = have and getattr(response, "status", None) == 206
        have = have if resumed else 0
        left = response.headers.get("Content-Length")
        total = have + int(left) if left else None
        terminal = sys.stderr.isatty()
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                total=total,
                initial=have,
                unit="B",
                unit_scale=True,
                desc=part.name.removesuffix(".part"),
                mininterval=0.2 if terminal else 10.0,
            ) as progress,
        ):
            while block := response.read(_BLOCK):
                file.write(block)
                progress.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise OSError(f"connection lost after {part.stat().st_size} of {total} bytes")


def verify(path: Path, checksum: str | None) -> None:
    """Compares a file with its checksum.

    Raises:
        FetchError: they differ; says what to do.
    """
    if checksum is None:
        return
    algorithm, _, expected = checksum.partition(":")
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise FetchError(
            f"{path}: {algorithm} is {digest.hexdigest()}, expected {expected}: "
            "remove the file and run again"
        )


def unpack(archive: Path, into: Path) -> None:
    """Unpacks a tar archive; every directory or file two levels down appears whole.

    ``LibriSpeech/dev-clean/...`` is unpacked beside its place and then renamed to
    ``into/LibriSpeech/dev-clean``, so that a killed run leaves no half corpus.

    Raises:
        FetchError: not a tar archive, or one with links or with paths that lead out.
    """
    into.mkdir(parents=True, exist_ok=True)
    print(f"unpacking {archive}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=into, prefix=".unpack") as work:
        try:
            with tarfile.open(archive) as tar:
                # Pythons before 3.11.4 have no filters; there _plain alone must do.
                tar.extraction_filter = getattr(tarfile, "data_filter", None)
                tar.extractall(work, _plain(tar, work))
        except (tarfile.TarError, EOFError, OSError) as error:
            raise FetchError(
                f"{archive}: cannot be unpacked ({error}): remove it and run again"
            ) from error
        for top in sorted(Path(work).iterdir()):
            for item in sorted(top.iterdir()) if top.is_dir() else [top]:
                place = into / item.relative_to(work)
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.is_dir():
                    shutil.rmtree(place)
                os.replace(item, place)


def _plain(tar: tarfile.TarFile, folder: str) -> Iterator[tarfile.TarInfo]:
    """The members: files and folders within ``folder``, as corpora have no others.

    Raises:
        TarError: another kind of member, or another place.
    """
    root = Path(folder).resolve()
    for member in tar:
        if not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name} is neither a file nor a folder")
        if not (root / member.name).resolve().is_relative_to(root):
            raise tarfile.TarError(f"{member.name} would lie outside")
        yield member
