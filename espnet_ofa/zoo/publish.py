"""Upload a packed folder to the Hugging Face Hub, or to what ``HF_ENDPOINT`` names."""

from __future__ import annotations

from pathlib import Path

import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    errors,
)
from huggingface_hub.utils import get_session, hf_raise_for_status

from espnet_ofa.checksums import (
    CARD_NAME,
    CHECKSUMS_NAME,
    NOT_LISTED,
    read_checksums,
    verify,
)
from espnet_ofa.hub import HUB_ID
from espnet_ofa.hub.errors import explained
from espnet_ofa.zoo.leaks import refuse_secrets
from espnet_ofa.zoo.usage import REPO


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    revision: str | None = None,
    token: str | None = None,
    exist_ok: bool = False,
) -> str:
    """Upload a packed folder in one commit: nobody ever pulls half of it.

    Called again after an interruption, it sends only what has not arrived. Files of an
    earlier package that this one has not are removed.

    Args:
        folder: what ``pack_asr`` or ``pack_upstream`` made.
        repo_id: ``user/name``; made if it is not there.
        private: visible to its owner only; for a repository that is made.
        dry_run: only print what would go and what would stay; contacts nobody.
        revision: branch, made from ``main`` if it is not there; by default ``main``.
        token: by default the one of ``hf auth login`` or ``HF_TOKEN``.
        exist_ok: also into a repository that holds something other than a package.

    Returns:
        Address of the repository, or of the branch.

    Raises:
        FileNotFoundError: no packed folder.
        ValueError: files are not what was packed, a secret among them, or a card that
            the hub refuses.
        FileExistsError: the repository holds something else, or is public where
            ``private`` was asked for.
        PermissionError: no token, a wrong one, or no right to write there.
        ConnectionError: the hub cannot be reached.
    """
    folder = Path(folder)
    api = HfApi(token=token)
    address = f"{api.endpoint}/{repo_id}" + (f"/tree/{revision}" if revision else "")
    if not HUB_ID.fullmatch(repo_id):
        raise ValueError(f"{repo_id!r}: expected a repository as user/name")
    names = packed_files(folder)
    card = (folder / CARD_NAME).read_text(encoding="utf-8")
    card = card.replace(REPO, f"{repo_id}@{revision}" if revision else repo_id)
    _check_card(folder / CARD_NAME, card)
    if dry_run:
        _print_plan(folder, names, address, card, revision, private)
        return address
    with explained(repo_id, address=address):
        _ask_the_hub(api, folder / CARD_NAME, card)
        there = _open_repo(api, repo_id, revision, private, exist_ok)
        content: dict[str, Path | bytes] = {name: folder / name for name in names}
        content[CARD_NAME] = card.encode()
        old = _earlier_files(api, repo_id, revision) if there else set()
        api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(k, _source(v)) for k, v in content.items()),
                *(CommitOperationDelete(k) for k in sorted(old - set(names))),
            ],
            commit_message="Publish with espnet_ofa",
            revision=revision,
        )
    return address


def packed_files(folder: str | Path) -> list[str]:
    """Names of what belongs to a package, after a look at every one.

    Raises:
        FileNotFoundError: no packed folder.
        ValueError: a file is not what was packed, or holds a secret.
    """
    folder = Path(folder)
    for name in NOT_LISTED:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder}: expected a packed folder, found no {name}; pack first "
                "(recipe stage 14; of cls.sh 7)"
            )
    names = sorted({*read_checksums(folder), *NOT_LISTED})
    parts = {p for name in names for p in (Path(name), *Path(name).parents) if p.name}
    links = sorted(p.as_posix() for p in parts if (folder / p).is_symlink())
    if links:
        raise ValueError(
            f"{folder}: expected files, found links: {', '.join(links[:5])}. What they "
            "point to would be published: pack again, or put copies in their place"
        )
    verify(folder)
    refuse_secrets(folder, names)
    return names


def _ask_the_hub(api: HfApi, path: Path, card: str) -> None:
    """Its own checks of the metadata, before anything is made there.

    They are asked for here, as ``ModelCard.validate`` of older clients does not know
    ``HF_ENDPOINT``.
    """
    response = get_session().post(
        f"{api.endpoint}/api/validate-yaml",
        json={"content": card, "repoType": "model"},
        headers={"Accept": "text/plain"},
    )
    if response.status_code == 400:
        raise ValueError(
            f"{path}: the hub does not accept its metadata, found "
            f"{' '.join(response.text.split())[:500]}; mend it, or pack again with "
            "other options. Nothing was uploaded"
        )
    hf_raise_for_status(response)


def _check_card(path: Path, text: str) -> None:
    """See that the client can read it."""
    try:
        ModelCard(text)
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as e:
        raise ValueError(
            f"{path}: expected metadata for the hub between two lines of ---, found "
            f"what it cannot read ({' '.join(str(e).split())[:300]}); mend it, or pack "
            "again"
        ) from e


def _print_plan(
    folder: Path,
    names: list[str],
    address: str,
    card: str,
    revision: str | None,
    private: bool,
) -> None:
    sizes = {name: (folder / name).stat().st_size for name in names}
    sizes[CARD_NAME] = len(card.encode())
    print(f"{folder} -> {address}")
    for name, size in sizes.items():
        print(f"  {size:>12,}  {name}")
    print(f"  {sum(sizes.values()):>12,}  bytes in {len(names)} files")
    print(f"  branch {revision or 'main'}, made if it is not there")
    print(
        "  private: made so, and refused where the repository is there and public"
        if private
        else "  public if it is made; a repository that is there stays as it is"
    )
    print(f"  deleted there: files of an earlier package ({CHECKSUMS_NAME}) not above")
    print(f"  {CARD_NAME}, its config left out:")
    for line in card.split("\n## Config\n")[0].strip().splitlines():
        print(f"  | {line}".rstrip())
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    for name in sorted({p.as_posix() for p in found} - {*names}):
        print(f"  left out, as it was not packed: {name}")


def _open_repo(
    api: HfApi, repo_id: str, revision: str | None, private: bool, exist_ok: bool
) -> bool:
    """Make the repository and branch, or see that they are to be written to.

    Returns:
        True if the repository was there.
    """
    try:
        info = api.model_info(repo_id)
    except errors.RepositoryNotFoundError:
        api.create_repo(repo_id, private=private)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        return False
    if private and not info.private:
        raise FileExistsError(
            f"{repo_id}: is there and public, and you ask for private; change that on "
            "the website, or choose another name"
        )
    branch_is_new = False
    if revision is not None:
        try:
            info = api.model_info(repo_id, revision=revision)
        except errors.RevisionNotFoundError:
            branch_is_new = True  # and will begin with what main has
    names = {sibling.rfilename for sibling in info.siblings or ()} - {".gitattributes"}
    if names and CHECKSUMS_NAME not in names and not exist_ok:
        raise FileExistsError(
            f"{repo_id}: expected a new, an empty or a packed repository, found "
            f"{', '.join(sorted(names)[:5])}; choose another name, or say --exist_ok"
        )
    if branch_is_new:
        api.create_branch(repo_id, branch=str(revision))
    return True


def _earlier_files(api: HfApi, repo_id: str, revision: str | None) -> set[str]:
    """What the package that is there lists."""
    try:
        path = api.hf_hub_download(repo_id, CHECKSUMS_NAME, revision=revision)
    except errors.EntryNotFoundError:
        return set()
    there = set(api.list_repo_files(repo_id, revision=revision))
    return {*read_checksums(Path(path).parent)} & there


def _source(content: Path | bytes) -> str | bytes:
    return str(content) if isinstance(content, Path) else content
