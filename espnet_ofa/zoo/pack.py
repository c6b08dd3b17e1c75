"""Turn what training left into a folder that can be published and loads anywhere.

A recogniser or classifier is laid out as ``espnet2.bin.pack`` lays it out
(``meta.yaml`` names the arguments of ``Speech2Text`` or ``Classification``), so that
unmodified ESPnet loads it. Nothing of the training's folder is needed any more, and
nothing of it shows.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor

from espnet_ofa.asr.package import META_NAME, config_text
from espnet_ofa.checksums import (
    CARD_NAME,
    CHECKSUMS_NAME,
    NOT_LISTED,
    read_checksums,
    write_checksums,
)
from espnet_ofa.files import no_room, write_file, write_text
from espnet_ofa.report.accuracy import score_classes_dir, write_accuracy_report
from espnet_ofa.report.budget import model_checksum
from espnet_ofa.report.folder import write_report
from espnet_ofa.report.tables import ssl_section
from espnet_ofa.upstream import OFAUpstream
from espnet_ofa.upstream.checkpoint import CONFIG_NAME, WEIGHTS_NAME, from_pretrained
from espnet_ofa.zoo.card import (
    ONNX_NAME,
    UNKNOWN_LICENSE,
    About,
    task_card,
    upstream_card,
)
from espnet_ofa.zoo.fetches import find_fetches
from espnet_ofa.zoo.kinds import ASR, CLS, Kind
from espnet_ofa.zoo.leaks import refuse_places, refuse_secrets
from espnet_ofa.zoo.portable import (
    copy_file,
    free_name,
    hide_all,
    hide_folders,
    portable,
    strings,
)
from espnet_ofa.zoo.pull import read_yaml
from espnet_ofa.zoo.results import own_rows
from espnet_ofa.zoo.weights import (
    load_packed,
    read_trained,
    save_safely,
    settle_lams,
    uses_lam,
)

logger = logging.getLogger(__name__)

RATE_NAME = "rate.json"
HF_CONFIG_NAME = "config.json"  # for transformers, see espnet_ofa.interop
HF_PREPROCESSOR_NAME = "preprocessor_config.json"
# An upstream that wants normalised waveforms normalises them itself.
_PREPROCESSOR = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "sampling_rate": 16000,
    "feature_size": 1,
    "do_normalize": False,
    "return_attention_mask": True,
    "padding_side": "right",
    "padding_value": 0.0,
}
_AT_ROOT = (META_NAME, WEIGHTS_NAME, *NOT_LISTED)


def pack_task(
    kind: Kind,
    exp_dir: str | Path,
    model_file: str | Path,
    out_dir: str | Path,
    *,
    about: About | None = None,
    bpemodel: str | Path | None = None,
    decode_dirs: Sequence[str | Path] | None = None,
    references: Mapping[str, str] | None = None,
    allow_fetches: bool = False,
) -> Path:
    """Pack a model that ESPnet trained, and check that it loads.

    Args:
        kind: of model.
        exp_dir: folder of the training, with ``config.yaml``.
        model_file: checkpoint in it, e.g. ``valid.loss.ave.pth``.
        out_dir: made, or replaced if it holds an earlier package.
        about: what the run does not know of itself, for the card.
        bpemodel: by default where the config says.
        decode_dirs: results for the card; by default all below ``exp_dir``. Those of
            other checkpoints are left out.
        references: test set -> Kaldi text file, where it is not where it was.
        allow_fetches: also a model of which loading fetches a part from elsewhere; the
            card then says so.

    Raises:
        FileNotFoundError: the config, the checkpoint or a file they need is missing.
        FileExistsError: ``out_dir`` holds something else.
        OSError: no room, or no right to write there.
        ValueError: the checkpoint is no model's, or lacks or adds keys; loading would
            fetch a part; a secret or a place of this machine would be in the package.
    """
    classes = kind is CLS
    exp_dir = Path(exp_dir)
    source = exp_dir / model_file
    trained = _read_config(exp_dir / CONFIG_NAME, kind)
    fetches = find_fetches(trained)
    if fetches and not allow_fetches:
        raise ValueError(
            f"{exp_dir / CONFIG_NAME}: expected a model that loads from its package "
            f"alone, found {', '.join(fetches)}, which fetches a model from elsewhere "
            "whenever it is built. Say --allow_fetches to pack it all the same (the "
            "card will tell), or train with `frontend: ofa`, which needs nothing else"
        )
    state = read_trained(source)
    if bpemodel is not None:
        trained["bpemodel"] = str(bpemodel)
    about = _with_command(about, exp_dir)
    checksum = model_checksum(state)
    score = score_classes_dir if classes else None
    rows = own_rows(exp_dir, source, checksum, decode_dirs, references, score)
    taken = {Path(text) for text in strings(trained)}
    clash = sorted(name for name in _AT_ROOT if Path(name) in taken)
    if clash:
        raise ValueError(
            f"{exp_dir / CONFIG_NAME}: {', '.join(clash)} in it is also the name of a "
            "packed file, and espnet_model_zoo would replace it by a path; rename it"
        )
    with _drafted(out_dir) as folder:
        name = exp_dir.resolve().name.lstrip(".")  # hidden files are the hub's
        home = folder / free_name(name, taken)
        config, config_path = _lay_out(home, kind, trained, source)
        model = load_packed(folder, kind, state, source)
        learned = settle_lams(model, config)
        write_text(config_path, config_text(config))
        _save(state, folder / WEIGHTS_NAME)
        report = None
        if rows:
            # Of this model alone; stage 13's may be of many.
            report = folder / free_name("report", taken)
            (write_accuracy_report if classes else write_report)(report, rows)
        else:
            logger.warning(f"{exp_dir}: not decoded: a card without results")
        parameters = sum(p.numel() for p in model.parameters())
        facts = name, config, rows, learned, parameters, report, about
        card = task_card(*facts, classes=classes, has_lam=uses_lam(model))
        _seal(folder, card, exp_dir)
    return Path(out_dir)


def pack_asr(
    exp_dir: str | Path, model_file: str | Path, out_dir: str | Path, **options: Any
) -> Path:
    """Pack a recogniser; see :func:`pack_task`."""
    return pack_task(ASR, exp_dir, model_file, out_dir, **options)


def pack_cls(
    exp_dir: str | Path,
    model_file: str | Path,
    out_dir: str | Path,
    *,
    about: About | None = None,
    decode_dirs: Sequence[str | Path] | None = None,
    references: Mapping[str, str] | None = None,
    allow_fetches: bool = False,
) -> Path:
    """Pack a classifier, which has no ``bpemodel``; see :func:`pack_task`."""
    return pack_task(
        *(CLS, exp_dir, model_file, out_dir),
        about=about,
        decode_dirs=decode_dirs,
        references=references,
        allow_fetches=allow_fetches,
    )


def pack_upstream(
    upstream_dir: str | Path,
    out_dir: str | Path,
    *,
    about: About | None = None,
    onnx: bool | None = False,
) -> Path:
    """Pack a pre-trained upstream: config, weights and measured rate.

    Args:
        upstream_dir: as ``save_pretrained`` leaves it; ``rate.json`` may be missing.
        out_dir: made, or replaced if it holds an earlier package.
        about: what the run does not know of itself, for the card.
        onnx: ``model.onnx`` as well; None: if it can be made here.

    Raises:
        FileNotFoundError: no upstream there.
        FileExistsError: ``out_dir`` holds something else.
        ImportError: ``onnx``, and a package that exporting needs is missing.
        ValueError: weights that do not fit their config, what ONNX cannot hold, or a
            secret or a place of this machine would be in the package.
    """
    source = Path(upstream_dir)
    if not source.is_dir():
        raise FileNotFoundError(
            f"{source}: expected a folder with {CONFIG_NAME} and {WEIGHTS_NAME}, found "
            "none; recipe stage 8 makes it"
        )
    upstream = from_pretrained(source)
    home = source.resolve()
    if home.name == "upstream":  # as pre-training leaves it, in its own folder
        home = home.parent
    about = _with_command(about, home)
    facts = _read_rate(source / RATE_NAME, model_checksum(upstream))
    with _drafted(out_dir) as folder:
        config = upstream.config.to_dict()
        upstream.config.to_yaml(folder / CONFIG_NAME)
        _write_json(
            folder / HF_CONFIG_NAME,
            {"model_type": "ofa", "architectures": ["OFAModel"], **config},
        )
        _write_json(folder / HF_PREPROCESSOR_NAME, _PREPROCESSOR)
        shutil.copyfile(source / WEIGHTS_NAME, folder / WEIGHTS_NAME)
        if facts is not None:
            _write_json(folder / RATE_NAME, facts)
        name = home.name
        has_onnx = onnx is not False and _add_onnx(
            folder, upstream, name, about.license, must=onnx is True
        )
        parameters = sum(p.numel() for p in upstream.parameters())
        card = upstream_card(name, config, facts, parameters, about, onnx=has_onnx)
        _seal(folder, card, source)
    return Path(out_dir)


def _add_onnx(
    folder: Path, upstream: OFAUpstream, name: str, license: str, must: bool
) -> bool:
    """Write ``model.onnx``; True if it is there, which it ``must``, or may not, be."""
    from espnet_ofa.zoo.onnx import export_onnx  # needs packages of its own

    try:
        export_onnx(upstream, folder / ONNX_NAME, name=name, license=license)
    except (ImportError, ValueError) as e:
        if must:
            raise
        logger.warning(f"no {ONNX_NAME} in the package: {e}")
        return False
    return True


def archive(folder: str | Path, path: str | Path) -> Path:
    """Zip of a packed folder, for espnet_model_zoo; equal folders give equal bytes."""
    folder = Path(folder)

    def write(draft: Path) -> None:
        with zipfile.ZipFile(draft, "w") as file:  # weights do not compress
            for member in sorted(p for p in folder.rglob("*") if p.is_file()):
                name = member.relative_to(folder).as_posix()
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                info.external_attr = 0o644 << 16
                info.file_size = member.stat().st_size  # zip64 where it must be
                with member.open("rb") as data, file.open(info, "w") as target:
                    shutil.copyfileobj(data, target)

    with _room_for(path):
        return write_file(path, write)


def _seal(folder: Path, card: str, source: Path) -> None:
    """Card, a look at everything in the folder, and its checksums."""
    write_text(folder / CARD_NAME, card)
    refuse_secrets(folder)
    refuse_places(folder, source)
    write_checksums(folder)


@contextmanager
def _drafted(out_dir: str | Path) -> Iterator[Path]:
    """A new folder that takes the place of ``out_dir`` when the block is through."""
    out = Path(out_dir).resolve()  # of a link: what it points to is replaced
    if Path.cwd().is_relative_to(out):
        raise FileExistsError(
            f"{out_dir}: is the working folder or above it, and a package replaces its "
            "folder as a whole; choose another folder, one of its own"
        )
    _refuse_others(out)
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    try:
        with _room_for(out_dir):
            yield draft
        _refuse_others(out)  # packing takes a while
        old = out.with_name(f"{draft.name}.old")
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(draft, out)
        except OSError:
            if old.exists():
                os.replace(old, out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _room_for(path: str | Path) -> Iterator[None]:
    """Say what to do where the disk is full."""
    try:
        yield
    except OSError as e:
        if not no_room(e):
            raise
        raise OSError(
            f"{path}: no room for it ({e}). Free some, or choose another disk; what "
            "was there before is as it was"
        ) from e


def _refuse_others(out: Path) -> None:
    """Nothing but an earlier package may be there to be replaced."""
    if not out.exists():
        return
    expected = f"{out}: expected an earlier package or nothing, found"
    advice = "remove it, or choose another folder"
    if not out.is_dir():
        raise FileExistsError(f"{expected} a file; {advice}")
    listed: set[str] = set()
    if (out / CHECKSUMS_NAME).is_file():
        try:
            listed = {*read_checksums(out), *NOT_LISTED}
        except ValueError as e:
            raise FileExistsError(
                f"{expected} a {CHECKSUMS_NAME} that is none ({e}); {advice}"
            ) from e
    files = (p for p in out.rglob("*") if p.is_symlink() or not p.is_dir())
    other = sorted({p.relative_to(out).as_posix() for p in files} - listed)
    if other:
        raise FileExistsError(
            f"{expected} {', '.join(other[:5])}, which {CHECKSUMS_NAME} does not list; "
            + advice
        )


def _save(state: dict[str, Tensor], path: Path) -> None:
    try:
        write_file(path, lambda draft: save_safely(state, draft))
    except SafetensorError as e:  # no OSError, and without a name
        raise OSError(f"{path}: cannot be written ({e})") from e


def _read_rate(path: Path, weights: str) -> dict[str, Any] | None:
    """``rate.json`` without folders; None if there is none for weights of that sum."""
    if not path.is_file():
        return None
    try:
        facts = hide_all(json.loads(path.read_text(encoding="utf-8")))
        ssl_section(facts)
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise ValueError(
            f"{path}: expected the frame periods that recipe stage 8 measures, found "
            f"something else ({type(e).__name__}: {e}); remove it or measure again"
        ) from e
    if facts.get("model_sha256") != weights:
        logger.warning(
            f"{path}: measured with other weights than {WEIGHTS_NAME} beside it; left "
            "out of the package. Measure again (recipe stage 8) to have it there"
        )
        return None
    return facts


def _read_config(path: Path, kind: Kind) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected the config that training left, found no such file; "
            "recipe stages 10 to 12 train recognisers, 4 and 5 of cls.sh classifiers"
        )
    config = read_yaml(path)
    if not isinstance(config.get("token_list"), list):
        raise ValueError(
            f"{path}: expected an ESPnet {kind.name}'s config with a token_list in it"
        )
    return config


def _lay_out(
    home: Path, kind: Kind, trained: dict[str, Any], source: Path
) -> tuple[dict[str, Any], Path]:
    """Config, checkpoint and other files in ``home``, ``meta.yaml`` beside it.

    Returns:
        The portable config and where it was written.
    """
    home.mkdir()
    config_path = home / CONFIG_NAME
    known = {Path(CONFIG_NAME)}

    def add(path: Path) -> str:
        target = home / free_name(path.name, known)
        copy_file(path, target)
        known.add(Path(target.name))
        return target.relative_to(home.parent).as_posix()

    config = portable(trained, add)
    files = {kind.model: add(source)}
    # Beside the config's, which is relative to the package: Speech2Text prefers this.
    bpemodel = config.get("bpemodel")
    if bpemodel and (home.parent / bpemodel).is_file():
        files["bpemodel"] = bpemodel
    write_text(config_path, config_text(config))
    meta = {  # as espnet2.bin.pack writes it
        "yaml_files": {kind.config: f"{home.name}/{CONFIG_NAME}"},
        "files": files,
        "timestamp": source.stat().st_mtime,
        "python": sys.version,
        "torch": str(torch.__version__),
        "espnet": config.get("version"),  # that trained
    }
    write_text(home.parent / META_NAME, yaml.safe_dump(meta, sort_keys=False))
    return config, config_path


def _with_command(about: About | None, exp_dir: Path) -> About:
    """The command that trained, from the head of its log, where nobody tells it."""
    about = about or About()
    if about.license == UNKNOWN_LICENSE:
        logger.warning("the card says license: unknown; --license tells it")
    log = exp_dir / "train.log"
    if about.command is None and log.is_file():
        with log.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                # queue.pl and slurm.pl begin with the host and the time.
                if line.startswith("# ") and "python" in line and " -m " in line:
                    about = replace(about, command=line[2:].strip())
                    break
    return replace(about, command=hide_folders(about.command or "") or None)


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
