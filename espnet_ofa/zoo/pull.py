"""Loading published models of tasks, without espnet_model_zoo and its flaw.

``Speech2Text.from_pretrained`` and ``ModelDownloader`` load what we publish too. But
espnet_model_zoo up to 0.1.7 edits the config it has downloaded, replacing *every*
string that equals a packed path, and compares no checksum. Here the download stays as
it is, is compared with its checksums, and only what names a packed file is resolved.

ESPnet also unpickles checkpoints, which runs whatever code is in them. Here weights
come from ``model.safetensors``; where a package has none, every checkpoint is read as
weights alone before ESPnet sees it.
"""

from __future__ import annotations

import glob
import inspect
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor

from espnet_ofa.asr.package import META_NAME
from espnet_ofa.checksums import CHECKSUMS_NAME, is_inside, read_checksums
from espnet_ofa.files import no_room
from espnet_ofa.hub import pull
from espnet_ofa.plugin import register
from espnet_ofa.subsampling.policy import fix_lam
from espnet_ofa.upstream.checkpoint import WEIGHTS_NAME, check_fit
from espnet_ofa.upstream.importers.source import read_weights
from espnet_ofa.zoo.kinds import ASR, CLS, Kind
from espnet_ofa.zoo.usage import only_ctc

if TYPE_CHECKING:
    from espnet2.bin.asr_inference import Speech2Text
    from espnet2.bin.cls_inference import Classification


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
        **options: of ESPnet's ``Speech2Text`` (``device``, ``beam_size``, ...). By
            default the beam is no larger than the vocabulary, and ``ctc_weight`` is 1
            for a model that has no decoder.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError, OSError: see ``pull``.
        ValueError: an altered file; no packed recogniser; a checkpoint that is more
            than weights, which is not run, or that lacks, adds or misshapes some;
            ``lam`` where nothing compresses.
    """
    folder = pull_asr(
        name, cache_dir=cache_dir, revision=revision, offline=offline, token=token
    )
    with _packed(folder, ASR) as (packed, state, source):
        register()
        from espnet2.bin.asr_inference import Speech2Text  # takes 10 s

        from espnet_ofa.report.decoding import check_recogniser

        defaults = _search_defaults(Speech2Text, packed["asr_train_config"])
        speech2text = Speech2Text(**{**packed, **defaults, **options})
        quantized = bool(options.get("quantize_asr_model"))
        check_recogniser(speech2text, state, str(source), quantized)
    if lam is not None:
        fix_lam(speech2text.asr_model, lam)
    return speech2text


def load_cls(
    name: str | Path,
    lam: float | None = None,
    *,
    cache_dir: str | Path | None = None,
    revision: str | None = None,
    offline: bool | None = None,
    token: str | bool | None = None,
    **options: Any,
) -> Classification:
    """Classifier of utterances from a directory, a zip or a hub id.

    Args:
        name: see :func:`load_asr`, also for the other arguments and errors.
        lam: lambda to classify at; by default the checkpoint's own.
        **options: of ESPnet's ``Classification`` (``device``, ``dtype``).
    """
    folder = pull_packed(
        name, CLS, cache_dir=cache_dir, revision=revision, offline=offline, token=token
    )
    with _packed(folder, CLS) as (packed, state, source):
        register()
        from espnet2.bin.cls_inference import Classification

        classifier = Classification(**packed, **options)
        check_fit(classifier.classification_model, state, str(source))
    if lam is not None:
        fix_lam(classifier.classification_model, lam)
    return classifier


def pull_asr(name: str | Path, **options: Any) -> Path:
    """Folder of a packed recogniser; see :func:`pull_packed`."""
    return pull_packed(name, ASR, **options)


def pull_packed(name: str | Path, kind: Kind, **options: Any) -> Path:
    """Folder of a packed model, without pickled weights where it can do without.

    Args:
        name: see :func:`espnet_ofa.hub.pull`, also for the options and errors.
        kind: of model.
        **options: ``cache_dir``, ``revision``, ``offline`` and ``token``.
    """
    folder = pull(name, without="*.pth", **options)
    _, files = _read_meta(folder, kind)
    listed = read_checksums(folder) if (folder / CHECKSUMS_NAME).is_file() else ()
    spare = files.pop(kind.model)
    # Those of a language model, and what a config names.
    needed = {folder / WEIGHTS_NAME, *files.values(), *(folder / x for x in listed)}
    if all(path.is_file() for path in needed - {spare}):
        return folder
    if not (folder / WEIGHTS_NAME).is_file():  # of espnet2.bin.pack
        return pull(name, **options)
    without = glob.escape(spare.relative_to(folder).as_posix())
    return pull(name, without=without, **options)


def _search_defaults(speech2text: Any, config_path: str) -> dict[str, Any]:
    """Options of a search that works where ESPnet's own would not."""
    config = read_yaml(Path(config_path))
    defaults: dict[str, Any] = {}
    vocabulary = config.get("token_list")
    if isinstance(vocabulary, list):
        usual = inspect.signature(speech2text).parameters["beam_size"].default
        defaults["beam_size"] = min(usual, len(vocabulary))
    # With another weight the search would choose by the scores of a decoder that is not
    # there.
    if only_ctc(config):
        defaults["ctc_weight"] = 1.0
    return defaults


def read_yaml(path: Path) -> dict[str, Any]:
    """Mapping in a YAML file.

    Raises:
        ValueError: not YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ValueError(
            f"{path}: expected YAML, found something else or a part of it "
            f"({' '.join(str(e).split())}); mend it, or get it again"
        ) from e
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping, found {str(content)[:200]!r}")
    return content


@contextmanager
def packed_options(folder: Path, kind: Kind) -> Iterator[dict[str, str]]:
    """What ESPnet needs to load a packed folder, as long as the block runs.

    Checkpoints hold weights alone then: ESPnet may unpickle them.

    Args:
        folder: with ``meta.yaml``, as ``espnet2.bin.pack`` lays it out.
        kind: of model.

    Yields:
        Names of arguments and paths; configs are copies in which paths are absolute,
        and so is the checkpoint where there is ``model.safetensors``, which ESPnet
        cannot read.

    Raises:
        FileNotFoundError: no ``meta.yaml``, or a file it names is missing.
        OSError: no room for the copies.
        ValueError: ``meta.yaml`` is not what ESPnet packs, a config is no YAML, or a
            checkpoint is more than weights; from the block, weights of another shape.
    """
    with _packed(folder, kind) as (options, _, _):
        yield options


def speech2text_options(folder: Path) -> AbstractContextManager[dict[str, str]]:
    """:func:`packed_options` of a recogniser, for ``Speech2Text``."""
    return packed_options(folder, ASR)


@contextmanager
def _packed(
    folder: Path, kind: Kind
) -> Iterator[tuple[dict[str, str], dict[str, Tensor], Path]]:
    """Options as above, the model's weights, and the file they are from."""
    configs, files = _read_meta(folder, kind)
    checkpoints = (kind.model, *kind.checkpoints)
    sources = {key: files[key] for key in checkpoints if key in files}
    if (folder / WEIGHTS_NAME).is_file():
        sources[kind.model] = folder / WEIGHTS_NAME
    for path in {**configs, **files, **sources}.values():
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: {META_NAME} names it, found no such file; get the model "
                "again, all of it"
            )
    used = [*configs.values(), *({**files, **sources}).values()]
    _check_listed(folder, [path.relative_to(folder).as_posix() for path in used])
    try:
        states = {key: read_weights(path) for key, path in sources.items()}
    except ValueError as e:
        raise ValueError(
            f"{e}. Get it again, or ask its author for a checkpoint of tensors alone"
        ) from e
    state, source = states[kind.model], sources[kind.model]
    with tempfile.TemporaryDirectory(prefix="espnet_ofa_") as scratch:
        options = {name: str(path) for name, path in files.items()}
        try:
            for name, path in configs.items():
                config = _absolute(read_yaml(path), folder.absolute())
                copy = Path(scratch, f"{name}.yaml")
                copy.write_text(yaml.safe_dump(config), encoding="utf-8")
                options[name] = _as_old_as(path, copy)
            if source.name == WEIGHTS_NAME:
                copy = Path(scratch, files[kind.model].name)
                with copy.open("wb") as file:
                    torch.save(state, file)
                options[kind.model] = _as_old_as(source, copy)
        except (OSError, RuntimeError) as e:  # torch puts its own over the system's
            if not no_room(e.__context__ or e):
                raise
            raise OSError(
                f"{folder}: no room for a copy of it in {scratch} ({e}). Free some, or "
                "choose another disk with TMPDIR"
            ) from e
        try:
            yield options, state, source
        except ValueError as e:
            read = options[kind.model]
            if read == str(source) or read not in str(e):
                raise
            raise ValueError(str(e).replace(read, str(source))) from e
        except RuntimeError as e:
            if "loading state_dict" not in str(e):
                raise
            raise ValueError(
                f"{', '.join(map(str, sources.values()))} does not fit the config it "
                f"is packed with: {' '.join(str(e).split())[:500]}. Pack the model "
                f"again ({kind.stage})"
            ) from e


def _as_old_as(original: Path, copy: Path) -> str:
    """Age ``copy``: results are not taken for older than their model."""
    status = original.stat()
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    return str(copy)


def _read_meta(folder: Path, kind: Kind) -> tuple[dict[str, Path], dict[str, Path]]:
    """Configs and other files that ``meta.yaml`` names, by argument.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not what ESPnet packs.
    """
    meta_path = folder / META_NAME
    if not meta_path.is_file():
        raise FileNotFoundError(
            f"{folder}: expected {META_NAME} of a packed {kind.name}, found "
            f"{sorted(p.name for p in folder.iterdir())[:10]}. An upstream is loaded "
            "with OFAUpstream.from_pretrained; a training directory is packed first "
            f"({kind.stage})"
        )
    meta = read_yaml(meta_path)
    known_keys = {
        "yaml_files": {kind.config, *kind.configs},
        "files": {kind.model, *kind.checkpoints, *kind.files},
    }
    parts = [meta.get(key) for key in known_keys]
    known = [
        part
        for part in parts
        if isinstance(part, dict) and all(isinstance(v, str) for v in part.values())
    ]
    # Without a checkpoint ESPnet would keep random weights.
    if len(known) < len(parts) or not (
        kind.config in known[0] and kind.model in known[1]
    ):
        raise ValueError(
            f"{meta_path}: expected mappings {' and '.join(known_keys)} of arguments "
            f"and paths, {kind.config} and {kind.model} among them, found "
            f"{str(meta)[:200]}. Pack the model again ({kind.stage})"
        )
    for (title, keys), part in zip(known_keys.items(), known, strict=True):
        if unknown := sorted(map(str, {*part} - keys)):
            raise ValueError(
                f"{meta_path}: expected of {title} only {', '.join(sorted(keys))}, "
                f"found {', '.join(unknown)}. Pack the model again ({kind.stage})"
            )
    names = [name for part in known for name in part.values()]
    if outside := [name for name in names if not is_inside(name)]:
        raise ValueError(
            f"{meta_path}: expected names of files in its folder, found "
            f"{', '.join(map(repr, outside))}; do not use this package"
        )
    configs, files = ({k: folder / v for k, v in part.items()} for part in known)
    return configs, files


def _check_listed(folder: Path, names: list[str]) -> None:
    """See that files have been compared: ``checksums.json``, if there, lists them."""
    if (folder / CHECKSUMS_NAME).is_file():
        unlisted = sorted({*names} - {*read_checksums(folder)})
        if unlisted:
            raise ValueError(
                f"{folder / CHECKSUMS_NAME}: expected it to list "
                f"{', '.join(unlisted)}, which {META_NAME} names, found no entry; get "
                "the model again"
            )


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
