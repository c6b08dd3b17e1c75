"""Errors of the hub's client as built-in ones that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espnet_ofa.files import no_room

_LOGIN = "Run `hf auth login`, or set HF_TOKEN to one that may"


@contextmanager
def explained(
    name: str, *, cache_dir: str | Path | None = None, address: str | None = None
) -> Iterator[None]:
    """Built-in errors in the place of those that the client raises in the block.

    What neither hub, network nor disk can cause is left as it is.

    Args:
        name: what is asked for.
        cache_dir: where it is to be kept, if not in the client's own cache.
        address: where it is to be uploaded; None for a download.
    """
    try:
        yield
    except Exception as e:  # the client's errors share no base class
        error = _explain(name, e, cache_dir, address)
        if error is None:
            raise
        raise error from e


def _explain(
    name: str,
    error: BaseException,
    cache_dir: str | Path | None,
    address: str | None,
) -> Exception | None:
    """The error that tells a user what happened and what to do, if it is known."""
    from huggingface_hub import constants, errors

    partial = getattr(errors, "IncompleteSnapshotError", ())  # of recent versions
    if isinstance(error, partial):
        return not_in_cache(name, found(error))
    unreachable = error.__cause__ or error  # a missing cache entry is only its result
    if isinstance(error, errors.LocalEntryNotFoundError) and not isinstance(
        unreachable, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
    ):
        error = unreachable
    told = found(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    refused = status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError)
    if address is not None:
        if status == 403:
            return PermissionError(
                f"{name}: expected a repository that you may write to, {told}. Use "
                "your own name or organisation, and a token with the right to write"
            )
        if refused:
            return PermissionError(
                f"{name}: expected {address} to accept the token, {told}. "
                f"{_LOGIN} write"
            )
        if status == 409:
            return FileExistsError(
                f"{name}: somebody has it, or changed it just now; {told}. Look at "
                f"{address}, run again or choose another name"
            )
        if status == 400:
            return ValueError(f"{name}: {address} refuses what is in it, {told}")
    hub = constants.ENDPOINT
    if isinstance(error, (errors.HFValidationError, errors.RevisionNotFoundError)):
        return FileNotFoundError(
            f"{name}: expected a hub id user/model and, if any, a revision that {hub} "
            f"lists under Files, History; {told}"
        )
    missing = isinstance(error, errors.RepositoryNotFoundError)
    if missing and not isinstance(error, errors.GatedRepoError):
        return FileNotFoundError(
            f"{name}: no such directory, and no such model that you may read at {hub}; "
            f"{told}. Check the spelling; a private one needs `hf auth login` or "
            "HF_TOKEN"
        )
    if refused:
        return PermissionError(
            f"{name}: expected {hub} to accept the token, {told}. {_LOGIN} read it; "
            "public models need none"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return not_in_cache(name, told)
    # What cuts an upload, the client wraps in a RuntimeError.
    wrapped = error.__cause__ if isinstance(error, RuntimeError) else None
    if _of_network(error) or _of_network(wrapped):
        if address is not None:
            return ConnectionError(
                f"{name}: expected to upload it to {address}, {told}. Check the "
                "network and HF_ENDPOINT and run again: what has arrived is not sent "
                "twice"
            )
        return ConnectionError(
            f"{name}: no such directory, so expected it at {hub}; {told}. Check the "
            "network and HF_ENDPOINT and call again: files that are complete are kept. "
            "Without a network give a directory or a zip, or set HF_HUB_OFFLINE=1 if "
            "it was downloaded before"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return on_disk(name, error, Path(cache_dir or constants.HF_HUB_CACHE))
    return None


def found(error: BaseException) -> str:
    """What the client said, on one line."""
    return f"found {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def not_in_cache(name: str, told: str) -> FileNotFoundError:
    """Offline, and something was never downloaded."""
    from huggingface_hub import constants

    return FileNotFoundError(
        f"{name}: no such directory; offline, and not all in the cache "
        f"({constants.HF_HUB_CACHE} or cache_dir); {told}. Download it once with "
        "a connection: unset HF_HUB_OFFLINE, leave out offline=True"
    )


def on_disk(name: str, error: OSError, folder: Path) -> OSError:
    """What the system said, of which model and where."""
    if no_room(error):
        return OSError(
            f"{name}: no room to keep it, {found(error)}. Free some, or choose "
            "another disk with HF_HOME or cache_dir; files that are complete are kept"
        )
    path = str(error.filename or folder)
    return OSError(error.errno, f"{name}: {error.strerror or error}", path)


def _of_network(error: BaseException | None) -> bool:
    """Whether calling again, or another network, could help."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, (ConnectionError, TimeoutError, HfHubHTTPError)):
        return True
    # The client's own client: requests, httpx or httpx2, by huggingface_hub's version.
    own = _packages(HfHubHTTPError) - {"builtins", "huggingface_hub"}
    return bool(own & _packages(type(error)))


def _packages(kind: type) -> set[str]:
    """Where a class and its bases come from."""
    return {base.__module__.partition(".")[0] for base in kind.__mro__}
