"""Last look at what is about to leave: no access token, no place where it was made."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

logger = logging.getLogger(__name__)

# Numbers and pictures: of all other files every byte is searched.
_BINARY = {".safetensors", ".pth", ".onnx", ".npz", ".png"}
# These look like nothing else.
_KINDS = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}\b|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{35}"
    r"|\bgh[opsur]_[A-Za-z0-9]{30,}\b|\bgithub_pat_\w{20,}|\bglpat-[\w-]{20,}"
    r"|\bxox[a-z]-[\w-]{10,}|\bsk-(?=[\w-]*\d)[\w-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
# Nothing, or what a shell or a reader puts something in the place of.
_VALUE = r"(?!(?:none|null|true|false)\b|[\"',;)}\]]|[$<{*])\S"
_PASSWORD = (
    r"(?:pass(?:word|wd|phrase)|secret|credentials?"
    r"|(?:api|access|private|secret)[_-]?key)"
)
# These go by their names. A token is most often no secret, unless it is long.
_NAMED = re.compile(
    rf"{_PASSWORD}[\"']?\s*[=:]\s*[\"']?{_VALUE}"
    rf"|--[\w-]{{0,40}}{_PASSWORD}\s+[\"']?{_VALUE}"
    r"|aws_secret\w*\W{1,4}[A-Za-z0-9/+]{40}"
    r"|token[\"']?\s*[=:]\s*\S{16,}|--[\w-]{0,40}token\s+(?!\$)\S{16,}"
    r"|authorization[\"']?\s*[=:]\s*[\"']?(?:bearer|basic|token)\s+[^\s$<{*]"
    r"|\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@\"']+:[^\s/@$<{*][^\s/@]*@",
    re.IGNORECASE,
)
# A token of the vocabulary may be any text.
_VOCABULARY = "token_list"
_VOCABULARY_FILES = {".model", ".vocab"}
_FOLDED = ("<details><summary>config.yaml</summary>", "</details>")


class _Piece(NamedTuple):
    """A line or a setting, and where it stands."""

    where: str
    text: str
    vocabulary: bool


def refuse_secrets(folder: Path, names: Iterable[str] | None = None) -> None:
    """Look for access tokens, passwords and private keys in all but weights.

    Logs what was not searched.

    Args:
        folder: to look through.
        names: of files in it; by default all.

    Raises:
        ValueError: there is one; names file and key or line, and does not repeat it.
    """
    names = _names(folder) if names is None else list(names)
    for name in names:
        for where, text, vocabulary in _pieces(folder / name):
            if _KINDS.search(text) or (not vocabulary and _NAMED.search(text)):
                raise ValueError(
                    f"{name} of the package: {where} holds what looks like an access "
                    "token, a password or a private key; remove it where it came from, "
                    "then pack again"
                )
    if left := [name for name in names if _is_binary(Path(name))]:
        logger.info(f"not searched for secrets, as not text: {', '.join(left)}")


def refuse_places(folder: Path, exp_dir: str | Path) -> None:
    """Look for the training's, home and working folder, and for this machine's name.

    Raises:
        ValueError: one is there; names file, key or line, and what was found.
    """
    pattern = _places(Path(exp_dir))
    for name in _names(folder):
        for where, text, vocabulary in _pieces(folder / name):
            if not vocabulary and pattern.search(text):
                raise ValueError(
                    f"{name} of the package: {where} names a folder or the host of "
                    "this training, which nobody else should see; change it in the "
                    "training's config.yaml, its log or results, or give another "
                    "--train_command"
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


def _names(folder: Path) -> list[str]:
    """All files; the card last, as it repeats what the others say."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in files)
    return sorted(names, key=lambda name: (name.endswith(".md"), name))


def _is_binary(path: Path) -> bool:
    return path.suffix in _BINARY


def _pieces(path: Path) -> Iterator[_Piece]:
    """Settings of a config, lines of all else, whatever their encoding."""
    if _is_binary(path):
        return
    if path.suffix in {".yaml", ".json"}:
        try:
            text = path.read_text(encoding="utf-8")
            content = (
                yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
            )
        except (ValueError, yaml.YAMLError):  # a broken one: by lines
            pass
        else:
            yield from _leaves(content, "", False)
            return
    with path.open("rb") as file:
        wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    vocabulary = path.suffix in _VOCABULARY_FILES
    with path.open(encoding="utf-16" if wide else "utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if path.suffix == ".md":  # the config in the card is looked at as a file
                start, end = (mark in line for mark in _FOLDED)
                vocabulary = (vocabulary or start) and not end
            yield _Piece(f"line {number}", line, vocabulary)


def _leaves(value: Any, key: str, vocabulary: bool) -> Iterator[_Piece]:
    last = key.rsplit(".", 1)[-1]
    vocabulary = vocabulary or last == _VOCABULARY
    if isinstance(value, dict):
        for k, v in value.items():
            yield _Piece(key or str(k), str(k), vocabulary)
            yield from _leaves(v, f"{key}.{k}" if key else str(k), vocabulary)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key, vocabulary)
    else:
        yield _Piece(key, f"{last}: {value}", vocabulary)
