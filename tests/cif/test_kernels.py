"""The kernels compile for GPUs, on a machine that has none."""

import importlib.util
import os
import subprocess
import sys

import pytest

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from espnet_ofa.cif import kernels

TYPES = {
    "weights": "*fp32", "lengths": "*i64", "edge": "*fp64", "fires": "*i32",
    "stats": "*fp64", "frames": "*bf16", "grad": "*bf16", "durations": "*fp64",
    "moves": "*fp32", "out": "*bf16", "size": "i32", "count": "i32", "dim": "i32",
}
WIDE = {name: "*fp64" for name in ("weights", "frames", "grad", "moves", "out")}
CASES = (
    (80, TYPES, triton.language.float32),
    (90, TYPES, triton.language.float32),
    (90, TYPES | WIDE, triton.language.float64),
)
for name in ("accumulate", "mix", "frame_gradients", "weight_gradients"):
    kernel = getattr(kernels, name)
    # Sizes must stay arguments: as a constant, 1 would be another kernel.
    kinds = {p.name: p.do_not_specialize for p in kernel.params}
    assert all(kinds.get(size, True) for size in ("size", "count"))
    for capability, types, accumulator in CASES:
        values = {"THRESHOLD": 0.7, "TAIL": 0.5, "ACC": accumulator, "BLOCK": 1024}
        signature = {arg: types.get(arg, "constexpr") for arg in kernel.arg_names}
        places = [(i, arg) for i, arg in enumerate(kernel.arg_names) if arg in values]
        source = ASTSource(kernel, signature, {(i,): values[arg] for i, arg in places})
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert ".visible .entry " + name in compiled.asm["ptx"]
        print(name, capability)
"""


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
def test_every_kernel_compiles_for_ampere_and_hopper(tmp_path):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split("\n")) == 13  # 4 kernels, 3 cases, a last newline
