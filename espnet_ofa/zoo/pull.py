"""Loading published recognisers, without espnet_model_zoo and its flaw.

``Speech2Text.from_pretrained`` and ``ModelDownloader`` load what we publish too. But
espnet_model_zoo up to 0.1.7 edits the config it has downloaded, replacing *every*
string that equals a packed path, and compares no checksum. Here the download stays as
it is, is compared with its checksums, and only what names a packed file is resolved.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from espnet_ofa.hub import pull
from espnet_ofa.plugin import register
from espnet_ofa.upstream import set_lam
from espnet_ofa.upstream.checkpoint import load_strictly

if TYPE_CHECKING:
    from espnet2.bin.asr_inference import Speech2Text

__all__ = ["load_asr", "pull", "speech2text_options"]

META_NAME = "meta.yaml"


def load_asr(
    name: str | Path,
    lam: float | None = None,
    *,
    cache_dir: str | Path | None = None,
    revision: str | None = None,
    offline: bool | None = None,
    token: str | bool | None = None,
    **options: Any,
) -> Speech2Text:
    """Recogniser from a directory, a zip or a hub id.

    Args:
        name: see :func:`espnet_ofa.hub.pull`, also for ``cache_dir``, ``revision``,
            ``offline`` and ``token``.
        lam: lambda to decode at; by default the checkpoint's own.
        **options: of ESPnet's ``Speech2Text`` (``device``, ``beam_size``, ...).

    Raises:
        FileNotFoundError, PermissionError, ConnectionError, OSError: see ``pull``.
        ValueError: an altered file; no packed recogniser; a checkpoint that lacks or
            adds keys; ``lam`` where nothing compresses.
    """
    folder = pull(
        name, cache_dir=cache_dir, revision=revision, offline=offline, token=token
    )
    with speech2text_options(folder) as packed:
        register()
        from espnet2.bin.asr_inference import Speech2Text  # takes 10 s

        speech2text = Speech2Text(**{**packed, **options})
        train_args: Any = speech2text.asr_train_args
        # These keep other keys than the checkpoint has.
        if not (options.get("quantize_asr_model") or train_args.use_adapter):
            # ESPnet itself loads whatever fits and says nothing of the rest.
            path = packed["asr_model_file"]
            state = torch.load(path, map_location="cpu", weights_only=True)
            load_strictly(speech2text.asr_model, state, path)
    if lam is not None:
        set_lam(speech2text.asr_model, lam)
    return speech2text


@contextmanager
def speech2text_options(folder: Path) -> Iterator[dict[str, str]]:
    """What ``Speech2Text`` needs to load a packed folder, as long as the block runs.

    Args:
        folder: with ``meta.yaml``, as ``espnet2.bin.pack`` lays it out.

    Yields:
        Names of arguments and paths; configs are copies in which paths are absolute.

    Raises:
        FileNotFoundError: no ``meta.yaml``, or a file it names is missing.
        ValueError: ``meta.yaml`` is not what ESPnet packs.
    """
    meta_path = folder / META_NAME
    if not meta_path.is_file():
        raise FileNotFoundError(
            f"{folder}: expected {META_NAME} of a packed recogniser, found "
            f"{sorted(p.name for p in folder.iterdir())[:10]}. An upstream is loaded "
            "with OFAUpstream.from_pretrained; a training directory is packed first "
            "(recipe stage 14)"
        )
    meta = yaml.safe_load(meta_path.read_text(encoding="utf-8"))
    parts = [meta.get(k) if isinstance(meta, dict) else None for k in _META_KEYS]
    known = [part for part in parts if isinstance(part, dict)]
    if len(known) < len(parts):
        raise ValueError(
            f"{meta_path}: expected mappings {' and '.join(_META_KEYS)}, found "
            f"{str(meta)[:200]}. Pack the model again (recipe stage 14)"
        )
    configs, files = ({k: folder / v for k, v in part.items()} for part in known)
    for path in [*configs.values(), *files.values()]:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: {META_NAME} names it, found no such file; get the model "
                "again, all of it"
            )
    with tempfile.TemporaryDirectory(prefix="espnet_ofa_") as scratch:
        options = {name: str(path) for name, path in files.items()}
        for name, path in configs.items():
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
            copy = Path(scratch, f"{name}.yaml")
            text = yaml.safe_dump(_absolute(config, folder.absolute()))
            copy.write_text(text, encoding="utf-8")
            # As old as the original: results are not taken for older than their model.
            status = path.stat()
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
            options[name] = str(copy)
        yield options


_META_KEYS = ("yaml_files", "files")


def _absolute(value: Any, folder: Path) -> Any:
    """``value`` with strings that name a file of ``folder`` made absolute.

    A vocabulary is never touched, and nothing that is one word: packed files that a
    config refers to lie in a subdirectory.
    """
    if isinstance(value, dict):
        tokens = value.get("token_list")
        value = {k: _absolute(v, folder) for k, v in value.items()}
        return {**value, "token_list": tokens} if isinstance(tokens, list) else value
    if isinstance(value, list):
        return [_absolute(v, folder) for v in value]
    if isinstance(value, str) and "/" in value and (folder / value).is_file():
        return str(folder / value)
    return value
