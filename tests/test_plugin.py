"""The ESPnet plugin: who gets the name ``ofa``, when, and what happens on failure."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from espnet_ofa import plugin

TASKS = sorted(plugin.ROLES)


def our_class(role: str) -> type:
    module, _, name = plugin.CLASSES[role].rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.fixture
def asr() -> ModuleType:
    plugin.register()
    return importlib.import_module("espnet2.tasks.asr")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_knows_its_roles(task: str) -> None:
    plugin.register()
    module = importlib.import_module(task)
    for role in plugin.CLASSES:
        choices = getattr(module, f"{role}_choices", None)
        if role in plugin.ROLES[task]:
            assert choices is not None
            assert choices.get_class("ofa") is our_class(role)
            assert "ofa" in choices.choices()
        elif choices is not None:
            assert "ofa" not in choices.choices()


def test_registering_again_changes_nothing(asr: ModuleType) -> None:
    before = dict(asr.encoder_choices.classes)
    plugin.register()
    plugin.install()
    assert asr.encoder_choices.classes == before
    finders = [f for f in sys.meta_path if isinstance(f, plugin._TaskFinder)]
    assert len(finders) == 1


@pytest.mark.parametrize(
    ("value", "finders"), [(None, 1), ("", 1), ("0", 1), ("1", 0), ("true", 0)]
)
def test_off_switch(
    monkeypatch: pytest.MonkeyPatch, value: str | None, finders: int
) -> None:
    others = [f for f in sys.meta_path if not isinstance(f, plugin._TaskFinder)]
    monkeypatch.setattr(sys, "meta_path", others)
    if value is None:
        monkeypatch.delenv(plugin.DISABLE_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(plugin.DISABLE_VARIABLE, value)
    plugin.install()
    assert len([f for f in others if isinstance(f, plugin._TaskFinder)]) == finders


def test_loader_keeps_its_type(asr: ModuleType) -> None:
    spec = importlib.util.find_spec("espnet2.tasks.asr")
    assert spec is not None
    assert type(spec.loader) is importlib.machinery.SourceFileLoader
    assert "frontend_choices" in (spec.loader.get_source(spec.name) or "")


def test_modules_are_found_by_any_finder(monkeypatch: pytest.MonkeyPatch) -> None:
    # An editable install of ESPnet comes with a finder of its own.
    class Loader:
        def create_module(self, spec: object) -> None:
            return None

        def exec_module(self, module: ModuleType) -> None:
            executed.append(module.__name__)

    class Finder:
        def find_spec(self, name: str, path: object, target: object = None) -> object:
            return importlib.machinery.ModuleSpec(name, Loader())

    executed: list[str] = []
    registered: list[str] = []
    monkeypatch.setattr(sys, "meta_path", [plugin._TaskFinder(), Finder()])
    monkeypatch.setattr(
        plugin, "_register_or_warn", lambda module: registered.append(module.__name__)
    )
    spec = importlib.util.find_spec("espnet2.tasks.asr")
    finder_spec = plugin._TaskFinder().find_spec("espnet2.tasks.asr")
    assert spec is not None and finder_spec is not None and finder_spec.loader
    finder_spec.loader.exec_module(ModuleType("espnet2.tasks.asr"))
    assert executed == registered == ["espnet2.tasks.asr"]
    assert plugin._TaskFinder().find_spec("espnet2.tasks.tts") is None


def test_a_broken_class_is_a_warning_and_the_rest_works(
    asr: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in plugin.ROLES["espnet2.tasks.asr"]:
        choices = getattr(asr, f"{role}_choices")
        monkeypatch.delitem(choices.classes, "ofa")
    monkeypatch.setitem(plugin.CLASSES, "preencoder", "espnet_ofa.asr.gone.Gone")
    with pytest.warns(RuntimeWarning, match="`preencoder: ofa` is not available"):
        plugin._register_or_warn(asr)
    assert asr.frontend_choices.get_class("ofa") is our_class("frontend")
    assert asr.encoder_choices.get_class("ofa") is our_class("encoder")
    assert "ofa" not in asr.preencoder_choices.choices()
    # By hand the same failure is an error.
    with pytest.raises(ImportError, match="espnet_ofa.asr.gone"):
        plugin.register_module(asr)


def test_a_class_that_does_not_fit_is_refused(
    asr: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plugin.CLASSES, "frontend", "collections.OrderedDict")
    with pytest.raises(TypeError, match="OrderedDict is not a AbsFrontend"):
        plugin.register_module(asr)


def test_unmodified_espnet_command(tmp_path: Path) -> None:
    # The start-up hook alone: nothing of ours is named on the command line.
    command = [
        *(sys.executable, "-m", "espnet2.bin.asr_train", "--print_config"),
        *("--frontend", "ofa", "--preencoder", "ofa"),
        *("--encoder", "ofa", "--model", "ofa"),
    ]
    environment = {k: v for k, v in os.environ.items() if k != plugin.DISABLE_VARIABLE}
    environment.pop("PYTHONPATH", None)
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    lines = result.stdout.splitlines()
    for role in ("frontend", "preencoder", "encoder", "model"):
        assert f"{role}: ofa" in lines


SPAWN = """
import multiprocessing, os, sys

def child(queue, disabled):
    import espnet2.tasks.asr as asr
    found = ["ofa" in asr.encoder_choices.classes]
    if disabled:
        import espnet_ofa
        espnet_ofa.register()  # by hand, after the task module was loaded
        found.append("ofa" in asr.encoder_choices.classes)
    queue.put((disabled, found))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    children = []
    for disabled in (False, True):
        os.environ["ESPNET_OFA_DISABLE"] = "1" if disabled else "0"
        children.append(context.Process(target=child, args=(queue, disabled)))
        children[-1].start()
    print(sorted(queue.get(timeout=300) for _ in children))
    for process in children:
        process.join()
    assert "torch" not in sys.modules  # the parent could not have registered
"""


def test_spawned_processes_and_registering_by_hand(tmp_path: Path) -> None:
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN)
    result = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split("\n")[-2] == "[(False, [True]), (True, [False, True])]"
