"""The house: import direction, light imports, what a wheel holds, the pinned set."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from shutil import copy, copytree

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import espnet_ofa

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "espnet_ofa"

# What each room may import, lowest room first.
MAY_IMPORT: dict[str, set[str]] = {
    "plugin": set(),
    "files": set(),
    "checksums": {"files"},
    "hub": {"checksums", "files"},
    "data": {"files"},
    "cif": set(),
    "subsampling": {"cif"},
    "upstream": {"files", "hub", "cif", "subsampling"},
    "pretrain": {"files", "cif", "subsampling", "upstream"},
    "asr": {"checksums", "cif", "subsampling", "upstream"},
    "interop": {"hub", "cif", "subsampling", "upstream"},
    "report": {"files", "subsampling", "upstream", "asr"},
    "bench": {"plugin", "files", "cif", "subsampling", "upstream", "report", "zoo"},
    "zoo": {"checksums", "files", "hub", "plugin", "subsampling", "upstream", "asr"}
    | {"report"},
    "tasks": {"plugin", "subsampling", "upstream", "pretrain", "asr"},
}
MAY_IMPORT["bin"] = {*MAY_IMPORT}
# The package itself only names what it loads on first use.
MAY_IMPORT["__init__"] = {"plugin", "report", "subsampling", "upstream"}


def imported_modules(file: Path) -> set[str]:
    """Full names of all modules a source file imports, at any depth of the code."""
    package = file.relative_to(REPOSITORY).with_suffix("").parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_is_known() -> None:
    assert {room_of(file) for file in SOURCES} <= {*MAY_IMPORT}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_down(room: str) -> None:
    files = [file for file in SOURCES if room_of(file) == room]
    assert files, f"espnet_ofa/{room} is gone: take it out of MAY_IMPORT"
    allowed = {room, *MAY_IMPORT[room]}
    unused = {*MAY_IMPORT[room]}
    for file in files:
        for name in imported_modules(file):
            parts = name.split(".")
            if name == "espnet_ofa.__version__":
                continue  # everyone may say which version they are
            if parts[0] == "espnet_ofa" and len(parts) > 1:
                reached = parts[1]
                # `from espnet_ofa import register` reaches a public name's home.
                reached = espnet_ofa._HOMES.get(reached, f".{reached}").split(".")[1]
                assert reached in allowed, (
                    f"{file.relative_to(REPOSITORY)} imports {name}: "
                    f"{room} may import only {sorted(allowed)}"
                )
                unused.discard(reached)
    if room != "bin":  # which may import whatever there is
        assert not unused, f"{room} does not import {sorted(unused)}: forbid it"


def test_operator_needs_torch_only() -> None:
    tops = {
        name.split(".")[0]
        for file in SOURCES
        if room_of(file) == "cif"
        for name in imported_modules(file)
    }
    assert tops - set(sys.stdlib_module_names) == {"torch", "triton", "espnet_ofa"}


def test_nothing_imports_the_old_espnet_package() -> None:
    # `espnet.nets` moved in 202611; `espnet2` is what both versions have.
    for file in [*SOURCES, *sorted((REPOSITORY / "local").rglob("*.py"))]:
        tops = {name.split(".")[0] for name in imported_modules(file)}
        assert "espnet" not in tops, file


def test_public_names() -> None:
    from espnet_ofa.plugin import register
    from espnet_ofa.report.budget import set_lam
    from espnet_ofa.subsampling.choice import set_squeeze
    from espnet_ofa.upstream import OFAUpstream

    assert espnet_ofa.OFAUpstream is OFAUpstream
    assert espnet_ofa.set_lam is set_lam
    assert espnet_ofa.set_squeeze is set_squeeze
    assert espnet_ofa.register is register
    assert {*espnet_ofa.__all__} <= {*dir(espnet_ofa)}
    with pytest.raises(AttributeError, match="no attribute 'OFAUpsteam'"):
        espnet_ofa.OFAUpsteam  # noqa: B018


def modules_added_by(code: str) -> set[str]:
    """Modules that a bare interpreter loads for some code beyond ``os``."""
    script = (
        "import os, sys; before = set(sys.modules)\n"
        f"{code}\n"
        "print(*(set(sys.modules) - before))"
    )
    command = [sys.executable, "-S", "-c", script]
    result = subprocess.run(
        command, cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    return set(result.stdout.split())


def test_start_up_is_cheap() -> None:
    # The price every Python program pays, counted in modules: wall time depends on
    # the machine.
    hook = (REPOSITORY / "espnet_ofa.pth").read_text(encoding="utf-8")
    # No path given: the working directory is on sys.path for `-c`.
    assert modules_added_by(hook) == {"espnet_ofa", "espnet_ofa.plugin", "__future__"}


def test_package_import_loads_neither_torch_nor_espnet() -> None:
    assert modules_added_by("import espnet_ofa; dir(espnet_ofa)") == {
        "espnet_ofa",
        "__future__",
    }


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A normal and an editable wheel, built from a copy of the sources."""
    root = tmp_path_factory.mktemp("build")
    source, dist = root / "source", root / "dist"
    copytree(PACKAGE, source / "espnet_ofa")
    for name in ("setup.py", "pyproject.toml", "espnet_ofa.pth", "LICENSE"):
        copy(REPOSITORY / name, source / name)
    copy(REPOSITORY / "README.md", source / "README.md")
    # One process each: a build changes sys.argv and more.
    for kind in ("wheel", "editable"):
        (dist / kind).mkdir(parents=True)
        code = f"from setuptools.build_meta import build_{kind} as build\n"
        code += f"build({str(dist / kind)!r})"
        subprocess.run(
            [sys.executable, "-c", code], cwd=source, check=True, capture_output=True
        )
    return {kind: next((dist / kind).glob("*.whl")) for kind in ("wheel", "editable")}


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("info/METADATA"))
        return message_from_bytes(archive.read(name))


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_wheel_installs_the_hook(
    wheels: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheels[kind]) as archive:
        archive.extractall(tmp_path)
    assert (tmp_path / "espnet_ofa.pth").is_file()
    # Exactly what Python does with site-packages at its start.
    script = (
        "import site, sys; site.addsitedir(sys.argv[1]);"
        "print(*(type(finder).__module__ for finder in sys.meta_path))"
    )
    command = [sys.executable, "-S", "-c", script, str(tmp_path)]
    result = subprocess.run(
        command, cwd="/", check=True, capture_output=True, text=True
    )
    assert result.stdout.split().count("espnet_ofa.plugin") == 1
    assert result.stderr == ""


def test_wheel_contents(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["wheel"]) as archive:
        names = set(archive.namelist())
    sources = {str(file.relative_to(REPOSITORY)) for file in SOURCES}
    assert names >= {*sources, "espnet_ofa/py.typed", "espnet_ofa.pth"}
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "espnet_ofa",
        "espnet_ofa.pth",
    }
    assert metadata(wheels["wheel"])["Version"] == espnet_ofa.__version__


def test_console_scripts_exist(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["wheel"]) as archive:
        name = next(n for n in archive.namelist() if n.endswith("entry_points.txt"))
        lines = archive.read(name).decode().splitlines()
    targets = [line.split(" = ")[1] for line in lines if " = " in line]
    assert targets
    for target in targets:
        module, _, function = target.partition(":")
        file = REPOSITORY / f"{module.replace('.', '/')}.py"
        tree = ast.parse(file.read_text(encoding="utf-8"))
        defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        assert function in defined, target


def pinned(*files: str) -> dict[str, str]:
    """Package name -> version of lock files; every line must pin one version."""
    pins: dict[str, str] = {}
    for file in files:
        for line in (REPOSITORY / "requirements" / file).read_text().splitlines():
            if line.startswith("#"):
                continue
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==" and "*" not in specifier.version, line
            assert name not in pins, f"{name} is pinned twice"
            pins[name] = specifier.version
    return pins


def test_pins_satisfy_the_package(wheels: dict[str, Path]) -> None:
    run = pinned("lock.txt")
    everything = pinned("lock.txt", "lock-test.txt")
    message = metadata(wheels["wheel"])
    for extra in (None, *message.get_all("Provides-Extra", [])):
        pins = run if extra in (None, "espnet", "recipes") else everything
        for line in message.get_all("Requires-Dist", []):
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and not marker.evaluate({"extra": extra or ""}):
                continue
            name = canonicalize_name(requirement.name)
            assert name in pins, f"{line} (extra {extra}) is not pinned"
            assert requirement.specifier.contains(pins[name]), line


def test_requirements_leave_an_espnet_environment_alone(
    wheels: dict[str, Path],
) -> None:
    lines = metadata(wheels["wheel"]).get_all("Requires-Dist", [])
    always = [one for one in map(Requirement, lines) if one.marker is None]
    assert {canonicalize_name(one.name): str(one.specifier) for one in always} == {
        "torch": "",  # whichever build is there stays
        "numpy": "",
        "pyyaml": "",
        "safetensors": ">=0.4",
        "huggingface-hub": ">=0.30",
        "soundfile": "",
    }
