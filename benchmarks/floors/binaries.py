"""Compiles kernels for GPUs that this machine need not have, and reads what each binary needs of a multiprocessor."""

# mypy: disable-error-code="import-untyped"
# (triton has no types)

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

if TYPE_CHECKING:
    from benchmarks.floors.launches import Launch

TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}


@dataclass(frozen=True)
class Usage:
    """Registers of a thread, bytes of its stack (not 0 where registers spill), bytes of a program's shared memory."""

    registers: int
    stack: int
    shared: int


def build(launch: "Launch", target: str) -> Any:
    """The kernel of that launch, compiled for a key of TARGETS."""
    positions = {name: i for i, name in enumerate(launch.signature)}
    source = ASTSource(
        fn=launch.kernel,
        signature=launch.signature,
        constexprs=launch.constants,
        attrs={(positions[name],): [["tt.divisibility", 16]] for name in launch.aligned},
    )
    options = dict(launch.options)
    if TARGETS[target][0] == "hip":
        options.pop("maxnreg", None)  # AMD's compiler has no such option
    return triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)


def usage_of(built: Any) -> Usage:
    """The usage of the compiled code: cuobjdump, which comes with Triton, reads NVIDIA's; AMD's assembly names it."""
    if "amdgcn" in built.asm:
        text = built.asm["amdgcn"]
        # From gfx90a on, this count includes the accumulation registers.
        registers, stack = r"\.vgpr_count:\s*(\d+)", r"ScratchSize: (\d+)"
    else:
        text = _resources(built.asm["cubin"])
        registers, stack = r"REG:(\d+)", r"STACK:(\d+)"
    return Usage(_largest(registers, text), _largest(stack, text), int(built.metadata.shared))


def _largest(pattern: str, text: str) -> int:
    return max(int(number) for number in re.findall(pattern, text))


def _resources(cubin: bytes) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    return done.stdout
