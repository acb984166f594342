"""Compile every variant of the squeeze-excite kernels for one GPU that need not be here; print what each one uses.

Run as `python _compile_ahead.py TARGET` without TRITON_INTERPRET. TARGET is sm_80, sm_90 or gfx942. The last line is
{variant: {"shared": bytes, "stack": bytes a thread or null, "vector": widest access to memory in bits or null}}.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from seattn_kernels import squeeze_excite as kernels

TARGETS = {"sm_80": ("cuda", 80, 32), "sm_90": ("cuda", 90, 32), "gfx942": ("hip", "gfx942", 64)}


def variants(every_row: bool) -> dict[str, tuple[Any, dict[str, str], dict[str, Any], kernels.Tile]]:
    """name -> kernel, types of its run-time arguments, its constants, its tile."""
    found = {}
    for layout, table in (("nchw", kernels.NCHW_TILES), ("channels_last", kernels.CHANNELS_LAST_TILES)):
        for row, (_, tile) in enumerate(table if every_row else table[-1:]):
            const = {"CHANNELS_LAST": layout == "channels_last", "BLOCK_C": tile.rows, "BLOCK_P": tile.cols}
            sizes = {"C": "i32", "P": "i32"}
            pool = {"x_ptr": "*bf16", "mean_ptr": "*fp32", **sizes}
            grad = {"dy_ptr": "*bf16", "x_ptr": "*bf16", "scale_ptr": "*fp32", "dz_ptr": "*fp32", **sizes}
            scale = {"x_ptr": "*bf16", "scale_ptr": "*fp32", "shift_ptr": "*fp32", "y_ptr": "*bf16", **sizes}
            name = f"{layout}-{row}"
            found[f"pool-{name}"] = (kernels._pool_kernel, pool, const, tile)
            found[f"gate_grad-{name}"] = (kernels._gate_grad_kernel, grad, {"GATE": "sigmoid", **const}, tile)
            found[f"scale-{name}"] = (kernels._scale_kernel, scale, {"SHIFT": False, **const}, tile)
            found[f"scale_shift-{name}"] = (kernels._scale_kernel, scale, {"SHIFT": True, **const}, tile)
    pointers = ("v_ptr", "w_ptr", "bias_ptr", "hidden_ptr", "act_ptr", "out_ptr")
    matvec = {**dict.fromkeys(pointers, "*fp32"), "K": "i32", "M": "i32"}
    tile = kernels.MATVEC_TILE
    none = {"TRANSPOSED": False, "BIAS": True, "IN_ACT": "", "OUT_GATE": "", "OUT_ACT_GRAD": ""}
    for name, changes in {
        "hidden": {},
        "scale": {"IN_ACT": "gelu", "OUT_GATE": "sigmoid"},
        "hidden_grad": {"TRANSPOSED": True, "BIAS": False, "OUT_ACT_GRAD": "gelu"},
    }.items():
        const = {**none, **changes, "BLOCK_M": tile.rows, "BLOCK_K": tile.cols}
        found[f"matvec-{name}"] = (kernels._matvec_kernel, matvec, const, tile)
    return found


def stack_bytes(cubin: bytes) -> int:
    """Bytes of stack a thread, as cuobjdump reports them: not 0 means that registers spill."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    return max(int(size) for size in re.findall(r"STACK:(\d+)", text.stdout))


def vector_bits(ptx: str) -> int:
    """The widest global load or store."""
    found = re.findall(r"(?:ld|st)\.global\S*?(?:\.v(\d))?\.[bfsu](\d+)", ptx)
    return max(int(count or 1) * int(bits) for count, bits in found)


def main(target: str) -> None:
    usage = {}
    for name, (kernel, arguments, constants, tile) in variants(every_row=target == "sm_90").items():
        signature = {arg: arguments.get(arg, "constexpr") for arg in kernel.arg_names}
        # What a launch finds out for itself: sizes and addresses divide by 16. Without it, accesses come out scalar.
        attrs = {(i,): [["tt.divisibility", 16]] for i, arg in enumerate(kernel.arg_names) if arg in arguments}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attrs)
        options = {"num_warps": tile.num_warps, "enable_fp_fusion": True}
        built = triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)
        cubin, ptx = built.asm.get("cubin"), built.asm.get("ptx")
        usage[name] = {
            "shared": built.metadata.shared,
            "stack": None if cubin is None else stack_bytes(cubin),
            "vector": None if ptx is None else vector_bits(ptx),
        }
    print(json.dumps(usage))


if __name__ == "__main__":
    main(sys.argv[1])
