"""Every kernel compiles for real GPUs, though none is here, and spills nothing in any row of its table."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHARED_LIMIT = 99 * 1024  # bytes: what a block gets on every NVIDIA GPU from sm_80 on, consumer cards included
AMD_SHARED_LIMIT = 64 * 1024  # bytes: a gfx942's local data share
NVIDIA = ("sm_80", "sm_90", "sm_100")
AMD = "gfx942"


def usage_of(target: str, scope: str, dtype: str) -> dict[str, Any]:
    """See `_compile_ahead`: what each kernel uses, compiled in a process of its own."""
    pytest.importorskip("triton", reason="needs triton")
    # TRITON_INTERPRET, once read, cannot be unset in this process.
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    command = [sys.executable, str(Path(__file__).with_name("_compile_ahead.py")), target, scope, dtype]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_fits(target: str, usage: dict[str, Any]) -> None:
    """Nothing on the stack, so no spilled register; shared memory that is there; 128-bit accesses to every map."""
    limit = AMD_SHARED_LIMIT if target == AMD else SHARED_LIMIT
    assert usage
    assert {name: use for name, use in usage.items() if use["stack"] != 0} == {}
    assert {name: use for name, use in usage.items() if use["shared"] > limit} == {}
    if target != AMD:
        narrow = {name: use["map_bits"] for name, use in usage.items() if set(use["map_bits"].values()) - {128}}
        assert narrow == {}


def kernels_of_the_package() -> set[str]:
    files = (ROOT / "kernels" / "seattn_kernels").glob("*.py")
    return {name for f in files for name in re.findall(r"^def ([a-z]\w*_kernel)\(", f.read_text("utf-8"), re.MULTILINE)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", [*NVIDIA, pytest.param(AMD, marks=pytest.mark.slow)])  # 20 s
def test_every_kernel_compiles_without_spills(target):
    """The fullest variant of each kernel: in every row for sm_90, in the last for the others."""
    usage = usage_of(target, "rows" if target == "sm_90" else "last", "bf16")
    assert {name.split("-")[0] for name in usage} == kernels_of_the_package()  # a new kernel needs its entry
    assert any(use["map_bits"] for use in usage.values()) == (target != AMD)
    assert_fits(target, usage)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", [*NVIDIA, AMD])
@pytest.mark.parametrize(("dtype", "scope"), [("bf16", "all"), ("fp32", "rows")])
def test_every_variant_in_every_row_compiles_without_spills(dtype, scope, target):
    assert_fits(target, usage_of(target, scope, dtype))
