"""docs/publishing.md: its commands and snippets, run in order as a reader would."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import UPSTREAM

from espnet_ofa.bin import publish as command
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig

PAGE = Path(__file__).parents[2] / "docs/publishing.md"
# Trained in test_pack*.py and test_load_asr.py, or a recipe's, or not installed.
ELSEWHERE = ("pack_asr", "run.sh", "espnet2", "load_asr", "asr_inference", "s3prl.nn")
ELSEWHERE += ("load_cls",)


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [text.replace("USER/NAME", "user/tiny") for text in found]


def commands() -> list[list[str]]:
    """Arguments of every command of ours, as a shell splits them."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    start = "python -m espnet_ofa.bin.publish "
    kept = [line for line in lines if not any(word in line for word in ELSEWHERE)]
    assert kept and all(line.startswith(start) for line in kept)
    return [shlex.split(line.removeprefix(start)) for line in kept]


def test_every_command_and_snippet(hub, tmp_path, monkeypatch, run_python, capsys):
    for package in ("onnxruntime", "onnxscript", "transformers"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    upstream = OFAUpstream(UpstreamConfig.from_dict(UPSTREAM))
    upstream.save_pretrained("exp/ssl_train_ssl_raw/upstream")
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000)
    soundfile.write("speech.wav", noise, 16000)
    for arguments in commands():
        if arguments[0] == "pack_upstream":
            arguments.append("--onnx")  # the page mentions it after the command
        command.main(arguments)
        out = capsys.readouterr().out
        if arguments[0] == "pull":
            assert (Path(out.strip()) / "model.onnx").is_file()
    assert b"model.onnx" in Path("packed/ssl/checksums.json").read_bytes()
    exported = Path("packed/ssl/model.onnx").read_bytes()
    assert str(tmp_path).encode() not in exported and b"cc-by-4.0" in exported
    assert hub.repos["user/tiny"].private and "v1" in hub.repos["user/tiny"].branches
    code = [b for b in blocks("python") if not any(word in b for word in ELSEWHERE)]
    assert len(code) == 3
    out = run_python("\n".join(code), hub.environment(tmp_path / "new"), cwd=tmp_path)
    ours, transformers, onnx = out.splitlines()
    assert ours == transformers
    units = re.match(r"\((\d+), 8\)", onnx)
    assert units and ours.startswith(f"torch.Size([1, {units[1]}, 8])")


def test_the_errors_are_ours():
    """Every message the page explains is one that the package raises."""
    package = Path(command.__file__).parents[1]
    source = "".join(p.read_text() for p in sorted(package.rglob("*.py")))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # strings over several lines
    source = re.sub(r"\{[^{}]*\}", "...", source)
    table = PAGE.read_text().split("## What the errors mean")[1]
    messages = re.findall("`([^`]+)`", "".join(re.findall(r"(?m)^\| (`.*?) \|", table)))
    assert len(messages) > 15
    for message in messages:
        for part in filter(None, message.split("...")):
            assert part.strip() in source, message
