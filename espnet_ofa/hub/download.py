"""A published folder from wherever it is: a directory, a zip, or the Hugging Face Hub.

Whatever is returned has been compared with its ``checksums.json``.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path

from espnet_ofa.checksums import (
    CARD_NAME,
    CHECKSUMS_NAME,
    NotAsPublished,
    read_checksums,
    sha256,
    verify,
)
from espnet_ofa.hub.errors import explained, not_in_cache, on_disk

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def pull(
    name: str | Path,
    *,
    cache_dir: str | Path | None = None,
    revision: str | None = None,
    offline: bool | None = None,
    token: str | bool | None = None,
    only: Collection[str] | None = None,
    without: str | None = None,
) -> Path:
    """Folder of a published model, verified.

    Args:
        name: directory, ``.zip`` file, or hub id: ``user/model``, or with a revision
            ``user/model@revision``, as espnet_model_zoo has it.
        cache_dir: where downloads and unpacked zips are kept; by default where
            huggingface_hub keeps them (``HF_HOME``).
        revision: branch, tag or commit of a hub id.
        offline: use what an earlier call has downloaded; by default as
            ``HF_HUB_OFFLINE`` says.
        token: of the hub; by default the one ``hf auth login`` or ``HF_TOKEN`` left.
        only: names of the files that are needed, if not all are.
        without: pattern of names (``*.pth``) that are neither downloaded nor looked at.

    Raises:
        FileNotFoundError: nothing of that name, here or on the hub; or, without a
            connection, not all of it in the cache.
        PermissionError: the hub refuses the token, or asks for one.
        ConnectionError: the hub cannot be reached.
        OSError: no room on the disk, or what else hinders reading and writing it.
        ValueError: no name, not a whole zip, a file is not what was published, or a
            revision of what has none.
    """
    if not str(name):
        raise ValueError(
            "expected a directory, a zip file or a hub id (user/model), found an empty "
            "name"
        )
    path = Path(name).expanduser()
    if revision is not None and path.exists():
        raise ValueError(
            f"{name}: only a hub id has revisions, found a "
            f"{'directory' if path.is_dir() else 'file'} of that name; leave out "
            f"revision {revision}"
        )
    if path.is_dir():
        # What training exports has no card, and was never published.
        published = only is None or (path / CARD_NAME).is_file()
        if not _verify(path, only, without) and published:
            logger.warning(f"{name} has no {CHECKSUMS_NAME}: it is not verified")
        return path
    if path.is_file():
        folder = _unpack(path, cache_dir)
        try:
            known = _verify(folder, only, without)
        except NotAsPublished:  # the zip's content, or what was unpacked from it?
            shutil.rmtree(folder)
            folder = _unpack(path, cache_dir)
            try:
                known = _verify(folder, only, without)
            except NotAsPublished as e:
                found = "; ".join(e.problems)
                raise ValueError(
                    f"{name} is not what was published: {found}. Get it again"
                ) from e
        if not known:
            logger.warning(f"{name} has no {CHECKSUMS_NAME}: it is not verified")
        return folder
    hub_id, _, tag = str(name).partition("@")
    if not HUB_ID.fullmatch(hub_id) or path.suffix == ".zip":
        raise FileNotFoundError(
            f"{name}: expected a directory, a zip file or a hub id (user/model); found "
            "no such file or directory, and not a hub id by its form"
        )
    if revision and tag and revision != tag:
        raise ValueError(f"{name} and revision {revision}: expected one of the two")
    revision = revision or tag or None
    with explained(f"{hub_id}@{revision}" if revision else hub_id, cache_dir=cache_dir):
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(
                hub_id,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=bool(offline),
                allow_patterns=None if only is None else [*only, CHECKSUMS_NAME],
                ignore_patterns=without,
            )
        )
    try:
        known = _verify(folder, only, without)
    except ValueError as e:
        missing = e.missing if isinstance(e, NotAsPublished) else ()
        if not missing or (not offline and _reached(hub_id, revision, token)):
            raise ValueError(f"{hub_id}: {e}") from e
        found = f"found {folder} without {', '.join(missing)}"
        raise not_in_cache(str(name), found) from e
    if not known:
        logger.warning(
            f"{hub_id} has no {CHECKSUMS_NAME}: what was downloaded is not verified"
        )
    return folder


def _verify(folder: Path, only: Collection[str] | None, without: str | None) -> bool:
    """:func:`verify` of what was asked for."""
    if without is not None and (folder / CHECKSUMS_NAME).is_file():
        listed = read_checksums(folder)
        only = [name for name in only or listed if not fnmatch(name, without)]
    return verify(folder, only)


def _unpack(archive: Path, cache_dir: str | Path | None) -> Path:
    """Folder with the content of a zip; unpacked once for each content."""
    if not zipfile.is_zipfile(archive):
        raise ValueError(
            f"{archive}: expected a directory, a whole zip file or a hub id; found a "
            f"file of {archive.stat().st_size} bytes that is not (or not all of) a zip"
        )
    folder = _archives(cache_dir) / sha256(archive)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".unpacking", dir=folder.parent))
    try:
        with zipfile.ZipFile(archive) as file:
            # The end of a zip that is packed in it, say a checkpoint's, serves as well
            # where its own is cut off.
            if min((x.header_offset for x in file.infolist()), default=0) > 0:
                raise zipfile.BadZipFile("its end is missing")
            file.extractall(draft)
        draft.chmod(0o755)
        os.replace(draft, folder)
    except zipfile.BadZipFile as e:
        raise ValueError(f"{archive}: damaged ({e}); get it again") from e
    except OSError as e:
        if not folder.is_dir():  # else another process was faster
            raise on_disk(str(archive), e, folder.parent) from e
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _archives(cache_dir: str | Path | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir).expanduser() / "archives"
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "espnet_ofa" / "archives"


def _reached(hub_id: str, revision: str | None, token: str | bool | None) -> bool:
    """Whether the hub answers; if not, it is the cache that lacked something."""
    from huggingface_hub import HfApi

    try:
        HfApi().repo_info(hub_id, revision=revision, token=token, timeout=10)
    except Exception:  # whatever kept the client from it before
        return False
    return True
