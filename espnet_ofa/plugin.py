"""Registers our classes under the name ``ofa`` in ESPnet's task modules.

ESPnet has no plugin interface: each task module keeps its choices in module
globals (``espnet2.tasks.asr.frontend_choices`` and so on). ``espnet_ofa.pth``,
installed beside the package, calls :func:`install` when the interpreter starts.
That puts a finder on ``sys.meta_path`` which does nothing until one of the task
modules below is imported, and then adds our classes to its tables. So unmodified
ESPnet commands know the name ``ofa``, and so do the fresh interpreters that
multi-GPU training spawns.

Every Python program on the machine pays for this module at start-up: it imports
nothing but ``sys`` and ``os``.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # what type checkers know it by; ``typing`` is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

DISABLE_VARIABLE = "ESPNET_OFA_DISABLE"

CLASSES = {
    "frontend": "espnet_ofa.asr.frontend.OFAFrontend",
    "preencoder": "espnet_ofa.asr.preencoder.OFAPreEncoder",
    "encoder": "espnet_ofa.asr.encoder.OFAEncoder",
    "model": "espnet_ofa.asr.model.OFAASRModel",
    "decoder": "espnet_ofa.asr.pooling.OFADecoder",
    "pooling": "espnet_ofa.asr.pooling.OFAPooling",
}

# Which roles each task module takes. Left out are tables that exist but whose
# task calls the class in a way ours cannot serve: spk and lid give their encoder
# no lengths; hubert, ssl, s2st and s2t_ctc give it further arguments; decoders other
# than that of cls predict tokens; the labels of diar belong to single frames; mt reads
# text. enh_s2t (and gan_tok in 202611) share the tables of asr.
ROLES = {
    "espnet2.tasks.asr": ("frontend", "preencoder", "encoder", "model"),
    "espnet2.tasks.s2t": ("frontend", "preencoder", "encoder"),
    "espnet2.tasks.slu": ("frontend", "preencoder", "encoder"),
    "espnet2.tasks.st": ("frontend", "preencoder", "encoder"),
    "espnet2.tasks.cls": ("frontend", "preencoder", "encoder", "decoder"),
    "espnet2.tasks.asvspoof": ("frontend", "preencoder", "encoder"),
    "espnet2.tasks.s2st": ("frontend", "preencoder"),
    "espnet2.tasks.ssl": ("frontend", "preencoder"),
    "espnet2.tasks.hubert": ("frontend", "preencoder"),
    "espnet2.tasks.spk": ("frontend", "pooling"),
    "espnet2.tasks.lid": ("frontend", "pooling"),
    "espnet2.tasks.s2t_ctc": ("frontend",),
    "espnet2.tasks.asr_transducer": ("frontend",),
    "espnet2.tasks.uasr": ("frontend",),
}

# s3prl's upstreams are the functions of this module.
S3PRL_HUB = "s3prl.hub"


def register() -> None:
    """Registers in the task modules that are loaded, and in all loaded later.

    Only needed where the start-up hook did not run: the package is on
    ``PYTHONPATH`` but not installed, or ``ESPNET_OFA_DISABLE`` is set. May be
    called any number of times.

    Raises:
        ValueError: a module that takes nothing of ours.
        ImportError: one of our classes cannot be imported.
        TypeError: a class does not fit its table (an unknown ESPnet version).
    """
    _add_finder()
    for name in (*ROLES, S3PRL_HUB):
        module = sys.modules.get(name)
        # While a module is being loaded its tables may be missing: the finder
        # registers it when it is complete.
        if module is not None and not _is_loading(module):
            register_module(module)


def register_module(module: ModuleType) -> None:
    """Adds ``ofa`` to every table of one loaded ESPnet task module.

    Args:
        module: a task module, for example ``espnet2.tasks.asr``; or ``s3prl.hub``.

    Raises:
        ValueError: a module that takes nothing of ours.
        ImportError: one of our classes cannot be imported.
        TypeError: a class does not fit its table.
    """
    if module.__name__ == S3PRL_HUB:
        module.ofa_local = ofa_local  # type: ignore[attr-defined]
    elif module.__name__ not in ROLES:
        raise ValueError(
            f"{module.__name__} has no tables for us; known are {', '.join(ROLES)}"
        )
    for role in ROLES.get(module.__name__, ()):
        _register_role(module, role)


def ofa_local(*args, **kwargs):
    """s3prl's entry for our upstreams; see :mod:`espnet_ofa.interop.s3prl`."""
    return _load("espnet_ofa.interop.s3prl.UpstreamExpert")(*args, **kwargs)


def install() -> None:
    """Start-up hook: from now on, task modules are registered when imported.

    Does nothing when the environment variable ``ESPNET_OFA_DISABLE`` is set to
    anything but ``0`` or the empty string.
    """
    if os.environ.get(DISABLE_VARIABLE, "") in ("", "0"):
        _add_finder()


def _add_finder() -> None:
    if not any(isinstance(finder, _TaskFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TaskFinder())


def _is_loading(module: ModuleType) -> bool:
    return getattr(getattr(module, "__spec__", None), "_initializing", False)


def _register_role(module: ModuleType, role: str) -> None:
    choices = getattr(module, f"{role}_choices", None)
    if choices is None:
        raise TypeError(f"{module.__name__} has no {role}_choices")
    ours = _load(CLASSES[role])
    if choices.base_type is not None and not issubclass(ours, choices.base_type):
        raise TypeError(
            f"{CLASSES[role]} is not a {choices.base_type.__name__}, which "
            f"{module.__name__}.{role}_choices asks for"
        )
    choices.classes["ofa"] = ours


def _load(name: str):
    """What a dotted name names."""
    home, _, attribute = name.rpartition(".")
    return getattr(__import__(home, fromlist=[attribute]), attribute)


def _register_or_warn(module: ModuleType) -> None:
    """Registers what can be registered; ESPnet must work whatever fails here."""
    if module.__name__ == S3PRL_HUB:
        register_module(module)
    for role in ROLES.get(module.__name__, ()):
        try:
            _register_role(module, role)
        except Exception as error:
            import warnings

            warnings.warn(
                f"espnet_ofa: `{role}: ofa` is not available in {module.__name__}: "
                f"{type(error).__name__}: {error}. ESPnet itself is not affected; "
                f"reinstall espnet_ofa, or set {DISABLE_VARIABLE}=1 to switch its "
                "plugin off.",
                RuntimeWarning,
                stacklevel=2,
            )


class _TaskFinder:
    """Finds ESPnet's task modules as all others do, then appends a step."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Returns the spec another finder gives, loader extended; else None."""
        if fullname not in ROLES and fullname != S3PRL_HUB:
            return None
        # All other finders are asked, not only the path finder: an editable
        # install of ESPnet brings a finder of its own.
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if find is None or isinstance(finder, _TaskFinder):
                continue
            spec = find(fullname, path, target)
            if spec is not None:
                _extend_loader(spec.loader)
                return spec
        return None


def _extend_loader(loader: object) -> None:
    """Makes this one loader object register the module it has executed.

    The method is replaced on the object: the loader keeps its type, so source
    look-up, ``runpy`` and debuggers work as before.
    """
    execute = getattr(loader, "exec_module", None)
    if execute is None:
        return

    def execute_and_register(module: ModuleType) -> None:
        execute(module)
        _register_or_warn(module)

    loader.exec_module = execute_and_register  # type: ignore[attr-defined]
