"""Checksums of a published folder, so that a damaged copy is refused, not loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from espnet_ofa.files import write_text

CHECKSUMS_NAME = "checksums.json"
CARD_NAME = "README.md"
# The card may be edited on the website; the hub adds its own hidden files.
NOT_LISTED = (CHECKSUMS_NAME, CARD_NAME)


class NotAsPublished(ValueError):
    """Files of a folder are missing, truncated, altered or not listed.

    Attributes:
        problems: one for each file, in words.
        missing: names of the missing files, where all others are as published.
    """

    def __init__(self, folder: Path, problems: list[str], missing: Collection[str]):
        # The snapshots of huggingface_hub hold links: without one of them alone, the
        # next download would bring the same blobs back.
        whole = folder.parents[1] if folder.parent.name == "snapshots" else folder
        super().__init__(
            f"{folder} is not what was published: {'; '.join(problems)}. Remove all of "
            f"{whole} and get it again; if you changed it yourself, remove its "
            + CHECKSUMS_NAME
        )
        self.problems = problems
        self.missing = missing if len(missing) == len(problems) else ()


def write_checksums(folder: str | Path) -> Path:
    """List size and SHA-256 of every file below ``folder`` in ``checksums.json``.

    Left out: the card (people edit it on the website) and hidden files.

    Returns:
        The file written.
    """
    folder = Path(folder)
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if path.is_file() and name not in NOT_LISTED and not hidden:
            files[name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    text = json.dumps({"files": files}, indent=2)
    return write_text(folder / CHECKSUMS_NAME, text + "\n")


def read_checksums(folder: str | Path) -> dict[str, tuple[int, str]]:
    """Bytes and SHA-256 of every file that ``checksums.json`` lists, by its name.

    Raises:
        FileNotFoundError: no ``checksums.json``.
        ValueError: it holds something else, or names a file outside of the folder.
    """
    path = Path(folder) / CHECKSUMS_NAME
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        listed = {
            name: (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in files.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(
            f"{path}: expected {{'files': {{name: {{'sha256', 'bytes'}}}}}}, found "
            f"something else ({type(e).__name__}: {e}). Download the folder again"
        ) from e
    outside = [name for name in listed if not is_inside(name)]
    if outside:
        raise ValueError(
            f"{path}: expected names of files in its folder, found "
            f"{', '.join(map(repr, outside[:5]))}; do not use this package"
        )
    return listed


def is_inside(name: str) -> bool:
    """Whether a name is that of a file in its folder, as far as one can tell by it."""
    path = PurePosixPath(name)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts


def verify(folder: str | Path, only: Collection[str] | None = None) -> bool:
    """Compare a folder with its ``checksums.json``.

    Args:
        folder: a published folder, or a download of one.
        only: names to look at (a partial download). By default all that are listed;
            other files are then nobody's business.

    Returns:
        False if there is no ``checksums.json``, so that nothing could be compared.

    Raises:
        NotAsPublished: a file is missing, truncated, altered or, of ``only``, there
            and not listed; names each one.
        ValueError: see :func:`read_checksums`.
    """
    folder = Path(folder)
    if not (folder / CHECKSUMS_NAME).is_file():
        return False
    listed = read_checksums(folder)
    names = list(listed)
    problems, missing = [], []
    if only is not None:
        names = [name for name in names if name in only]
        problems = [
            f"{name}: expected {CHECKSUMS_NAME} to list it, found no entry"
            for name in sorted({*only} - {*listed, *NOT_LISTED})
            if (folder / name).exists()
        ]
    for name in names:
        problem = _compare(folder / name, *listed[name])
        problems += [f"{name}: {problem}"] if problem else []
        missing += [] if (folder / name).is_file() else [name]
    if problems:
        raise NotAsPublished(folder, problems, missing)
    return True


def _compare(path: Path, size: int, digest: str) -> str | None:
    """What is wrong with a file, in words; None if nothing is."""
    if not path.is_file():
        return f"expected {size} bytes, found no such file"
    found = path.stat().st_size
    if found != size:
        return f"expected {size} bytes, found {found}"
    if (checksum := sha256(path)) != digest:
        return f"expected sha256 {digest}, found {checksum}"
    return None


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
