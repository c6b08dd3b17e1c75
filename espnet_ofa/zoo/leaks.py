"""Last look at what is about to leave: no access token, no place where it was made."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

_LARGEST = 5_000_000  # bytes of what may be text; tables and configs are far smaller
_KINDS = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}\b|\bAKIA[0-9A-Z]{16}\b|\bgh[opsur]_[A-Za-z0-9]{30,}\b"
    r"|\bgithub_pat_\w{20,}|\bglpat-[\w-]{20,}|\bsk-(?=[\w-]*\d)[\w-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_SECRET = r"(?:api[_-]?key|token|secret|password)"
_NAMED = re.compile(
    rf"{_SECRET}[\"']?\s*[=:]\s*\S{{16,}}|--[\w-]*{_SECRET}\s+\S{{16,}}",
    re.IGNORECASE,
)
# A token of the vocabulary may be any text.
_VOCABULARY = "token_list"
_VOCABULARY_FILES = {".model", ".vocab"}
_FOLDED = re.compile(
    r"<details><summary>config\.yaml</summary>.*?</details>", re.DOTALL
)


def refuse_secrets(folder: Path, names: Iterable[str] | None = None) -> None:
    """Look for access tokens, passwords and private keys in every text.

    Args:
        folder: to look through.
        names: of files in it; by default all.

    Raises:
        ValueError: there is one; names file and key or line, and does not repeat it.
    """
    for name, text in _texts(folder, names):
        found = _find(name, text, _NAMED) if not _is_vocabulary(name) else None
        found = found or _find(name, text, _KINDS)
        if found is None and _KINDS.search(text):  # in the vocabulary or a folded one
            found = "text"
        if found is not None:
            raise ValueError(
                f"{folder / name}: {found} holds what looks like an access token, a "
                "password or a private key; remove it where it came from, then pack "
                "again"
            )


def refuse_places(folder: Path, exp_dir: str | Path) -> None:
    """Look for the training's, home and working folder, and for this machine's name.

    Raises:
        ValueError: one is there; names file, key or line, and what was found.
    """
    pattern = _places(Path(exp_dir))
    for name, text in _texts(folder, None):
        found = None if _is_vocabulary(name) else _find(name, text, pattern)
        if found is not None:
            raise ValueError(
                f"{name} of the package: {found} names a folder or the host of this "
                "training, which nobody else should see; change it in the training's "
                "config.yaml, its log or results, or give another --train_command"
            )


def _places(exp_dir: Path) -> re.Pattern[str]:
    folders = set()
    for path in (exp_dir, Path.home(), Path.cwd()):
        folders |= {str(p) for p in (path, path.resolve()) if p.is_absolute()}
    wanted = [
        rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])"
        for folder in sorted(folders - {"/"})
    ]
    host = socket.gethostname()
    if len(host) > 3 and host != "localhost":
        name = re.escape(host)
        if host.isalpha():  # as any word of the card may be: only as an address
            wanted.append(rf"(?:[@/]|addr: ){name}\b|(?<![\w.-]){name}:\d")
        else:
            wanted.append(rf"(?<![\w.-]){name}(?![\w-])")
    return re.compile("|".join(wanted) or "(?!)")


def _texts(folder: Path, names: Iterable[str] | None) -> Iterator[tuple[str, str]]:
    """Name and content of every file that is UTF-8."""
    if names is None:
        files = (path for path in folder.rglob("*") if path.is_file())
        names = (path.relative_to(folder).as_posix() for path in files)
        # The card last: it repeats what the others say.
        names = sorted(names, key=lambda name: (name.endswith(".md"), name))
    for name in names:
        path = folder / name
        if path.stat().st_size < _LARGEST:
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def _is_vocabulary(name: str) -> bool:
    return Path(name).suffix in _VOCABULARY_FILES


def _find(name: str, text: str, pattern: re.Pattern[str]) -> str | None:
    """Key or line that matches; None if nothing does."""
    for where, line in _lines(name, text):
        if pattern.search(line):
            return where
    return None


def _lines(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Where something stands, and what: keys of a config, else lines."""
    suffix = Path(name).suffix
    if suffix in {".yaml", ".json"}:
        try:
            content = yaml.safe_load(text) if suffix == ".yaml" else json.loads(text)
        except (ValueError, yaml.YAMLError):
            pass
        else:
            yield from _leaves(content, "")
            return
    if suffix == ".md":
        # The card's copy of the config: line numbers stay, the vocabulary goes.
        text = _FOLDED.sub(lambda found: "\n" * found[0].count("\n"), text)
    for number, line in enumerate(text.splitlines(), 1):
        yield f"line {number}", line


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    last = key.rsplit(".", 1)[-1]
    if last == _VOCABULARY:
        return
    if isinstance(value, dict):
        for k, v in value.items():
            yield key or str(k), str(k)
            yield from _leaves(v, f"{key}.{k}" if key else str(k))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, f"{last}: {value}"
