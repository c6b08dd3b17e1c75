"""A training's ``config.yaml``, made fit to travel: files come along, paths go."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Where training ran and what it read: nothing that loading or an architecture needs.
LOCAL = {
    "config",
    "output_dir",
    "train_data_path_and_name_and_type",
    "valid_data_path_and_name_and_type",
    "train_shape_file",
    "valid_shape_file",
    "init_param",
    "pretrain_path",
    "deepspeed_config",
    "rir_scp",
    "noise_scp",
    "wandb_project",
    "wandb_id",
    "wandb_entity",
    "wandb_name",
    "dist_backend",
    "dist_init_method",
    "dist_launcher",
    "dist_master_addr",
    "dist_master_port",
    "dist_rank",
    "dist_world_size",
}
# What ESPnet opens when it builds a model or decodes, wherever it stands; nothing else
# comes along. A bpemodel may also be the name of a tokenizer that is downloaded.
FILES = {
    "bpemodel",
    "stats_file",
    "non_linguistic_symbols",
    "added_tokens_txt",  # whisper's
    "beats_ckpt_path",
}

_LETTER = r"(?:\\.|[^\s,;:=<>|\"'\\])"  # of a path; a blank in it is escaped
_PATH = re.compile(
    # Not inside a word or a path; right after an option of one letter, as in -I/usr.
    r"(?:(?<![\w./~-])|(?<=[\s\"']-[A-Za-z])|(?<=\A-[A-Za-z]))"
    # After a colon only a single slash: the others are addresses.
    rf"(?:(?:(?<!:)/+|/(?!/)|~){_LETTER}*/|(?:\.\./)+(?:{_LETTER}*/)?)"
    r"((?:\\.|[^\s,;:=<>|/\"'\\])+)/?"
)
# With blanks: in quotes, where no further path or option begins.
_QUOTED = re.compile(r"([\"'])(?:~|/|\.\./)(?:(?! [-/~.])[^\"'\n])*/([^\"'/\n]+)/?\1")


def hide_folders(text: str) -> str:
    """``text`` with absolute paths cut down to their last part; addresses stay.

    >>> hide_folders("train --data /home/me/data/train,speech --lr 1e-3")
    'train --data train,speech --lr 1e-3'
    """
    text = re.sub(r"\bfile:/+", "/", text)
    return _PATH.sub(r"\1", _QUOTED.sub(r"\1\2\1", text))


def hide_all(value: Any) -> Any:
    """:func:`hide_folders` of every string in what JSON or YAML held."""
    if isinstance(value, dict):
        return {k: hide_all(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hide_all(v) for v in value]
    return hide_folders(value) if isinstance(value, str) else value


def portable(config: dict[str, Any], add: Callable[[Path], str]) -> dict[str, Any]:
    """A config that names nothing outside its package.

    Args:
        config: what ESPnet's training left as ``config.yaml``.
        add: takes a file into the package and returns its path there.

    Returns:
        A changed copy: keys of :data:`LOCAL` are empty, keys of :data:`FILES` name the
        package's files, other paths are cut down to a name, and an upstream is
        described, not named.

    Raises:
        FileNotFoundError: a file that loading needs is missing.
        ValueError: the config names an upstream that it does not describe.
    """
    config = copy.deepcopy(config)
    _describe_upstream(config)

    needed = FILES if config.get("token_type") == "bpe" else FILES - {"bpemodel"}

    def walk(value: Any, key: str) -> Any:
        if isinstance(value, dict):  # a module's own options, whatever its key is
            return {k: walk(v, k) for k, v in value.items()}
        if key in LOCAL:
            return [] if isinstance(value, list) else None
        if isinstance(value, list):
            return [walk(v, key) for v in value]
        if not isinstance(value, str) or not value:
            return value
        if key in FILES:
            path = Path(value).expanduser()
            if path.is_file():
                return add(path)
            if key in needed:
                raise FileNotFoundError(
                    f"{value}: the config names it as {key}, found no such file; run "
                    "this where the training ran, the recipe's folder"
                )
        return _name_only(value)

    # A vocabulary is not looked at: a token may well be the name of a file.
    return {k: v if k == "token_list" else walk(v, k) for k, v in config.items()}


def _name_only(text: str) -> str:
    """A setting without the folders in it; what loading needed, it will now miss."""
    path = Path(text).expanduser()
    # A hub's name has one slash; a relative path may be of a folder that is gone.
    if (
        path.is_absolute()
        or "://" not in text
        and (
            "/" in text
            and _exists(path)
            or re.fullmatch(r"[^\s:=/]*(/[^\s:=/]*){2,}", text)
        )
    ):
        return path.name
    return hide_folders(text)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name
        return False


def copy_file(source: Path, target: Path) -> None:
    """Copy; a sentencepiece model without the names of the texts it was trained on.

    Raises:
        ValueError: ``.model`` of something else.
    """
    if source.suffix != ".model":
        shutil.copyfile(source, target)
        return
    from google.protobuf.message import DecodeError  # ESPnet brings it
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        model.ParseFromString(source.read_bytes())
    except DecodeError as e:
        raise ValueError(f"{source}: not a sentencepiece model ({e})") from e
    model.trainer_spec.ClearField("input")
    model.trainer_spec.ClearField("model_prefix")
    target.write_bytes(model.SerializeToString())


def _describe_upstream(config: dict[str, Any]) -> None:
    """Put the recorded shape of the upstream in the place of its name."""
    conf = config.get("frontend_conf") or {}
    if config.get("frontend") != "ofa" or not isinstance(conf.get("upstream"), str):
        return
    if "upstream_config" not in conf:
        raise ValueError(
            f"frontend_conf: upstream is {conf['upstream']}, and no upstream_config "
            "says what that is; training writes it. Give the config.yaml that training "
            "left in its folder, not the one it was started with"
        )
    conf["upstream"] = copy.deepcopy(conf["upstream_config"])


def strings(value: Any) -> Iterator[str]:
    """Every string in a config, those of the vocabulary too."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def free_name(name: str, taken: set[Path]) -> str:
    """``name``, lengthened until it equals no string of the config.

    espnet_model_zoo replaces every string of a config that equals the path of a packed
    file or folder, tokens too. Even ``exp`` is a setting in every ESPnet config
    (``brctc_risk_strategy``).
    """
    while Path(name) in taken:
        name += "_"
    return name
