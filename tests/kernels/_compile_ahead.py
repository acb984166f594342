"""Compile the kernels for one GPU that need not be here; print what each one uses.

Run as `python _compile_ahead.py TARGET SCOPE DTYPE` without TRITON_INTERPRET. TARGET is a key of TARGETS, DTYPE that of
the maps: "bf16", "fp16" or "fp32". SCOPE is "last" (each kernel's first variant in the last row of each table), "rows"
(in every row) or "all" (every variant in every row). The last line is {kernel-variant-row: use}, use being
{"shared": bytes, "stack": bytes a thread, "map_bits": {map argument: widest access to it in bits} or null}.
"""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import triton
from _compile_entries import ENTRIES, Entry, Row
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.floors.binaries import TARGETS, usage_of


def chosen(scope: str) -> Iterator[tuple[str, Entry, Row, dict[str, Any]]]:
    """Name, kernel, row and constants of all that the scope takes."""
    for entry in ENTRIES:
        last = {row.constants.get("CHANNELS_LAST"): row for row in entry.rows}  # of each layout
        for variant, constants in list(entry.variants.items())[: None if scope == "all" else 1]:
            for row in last.values() if scope == "last" else entry.rows:
                yield f"{entry.kernel.fn.__name__}-{variant}-{row.name}", entry, row, constants


def bits_of_each_pointer(ptx: str) -> list[int]:
    """The widest global load or store through each argument of the kernel, by following registers through the code."""
    lines = re.findall(r"^\s*(?:@!?%\w+\s+)?([a-z]\S*)\s+(.*);", ptx, re.MULTILINE)
    sources: dict[str, set[int]] = {}  # register -> arguments that it is made from
    widest: dict[int, int] = {}
    grew = True
    while grew:  # a loop carries registers backwards
        grew = False
        for op, operands in lines:
            if op.startswith(("ld.param", "ld.global", "st.global")):
                address = re.search(r"\[([^\]]*)\]", operands)
                assert address is not None, operands
            if op.startswith("ld.param"):
                found = {int(i) for i in re.findall(r"_param_(\d+)", address[1])}
            elif op.startswith(("ld.", "st.")):  # what is loaded is no address
                if ".global" in op:
                    count, bits = re.search(r"(?:\.v(\d))?\.[bfsu](\d+)$", op).groups()
                    for argument in set().union(*(sources.get(r, set()) for r in re.findall(r"%\w+", address[1]))):
                        widest[argument] = max(widest.get(argument, 0), int(count or 1) * int(bits))
                continue
            else:
                found = set().union(*(sources.get(r, set()) for r in re.findall(r"%\w+", operands.split(",", 1)[-1])))
            target = re.match(r"%\w+", operands)
            if target and not found <= sources.get(target[0], set()):
                sources[target[0]] = sources.get(target[0], set()) | found
                grew = True
    return [widest.get(i, 0) for i in range(max(widest, default=-1) + 1)]


def main(target: str, scope: str, dtype: str) -> None:
    usage = {}
    for name, entry, row, variant in chosen(scope):
        if dtype != "bf16" and not entry.maps:
            continue  # nothing in it depends on the maps' dtype
        constants = {**row.constants, **variant}
        signature = {}
        for arg in entry.kernel.arg_names:
            number = "fp32" if arg in ("eps", "inv_count") else "i32"
            pointer = f"*{dtype}" if arg in entry.maps else "*fp32"
            signature[arg] = "constexpr" if arg in constants else pointer if arg.endswith("_ptr") else number
        # What a launch finds out for itself: sizes and addresses divide by 16. Without it, accesses come out scalar.
        attrs = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(signature.values()) if t == "i32" or t[0] == "*"}
        source = ASTSource(fn=entry.kernel, signature=signature, constexprs=constants, attrs=attrs)
        options = {"num_warps": row.num_warps, "enable_fp_fusion": True}
        if row.registers is not None and TARGETS[target][0] == "cuda":
            options["maxnreg"] = row.registers
        built = triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)
        map_bits = None
        if "ptx" in built.asm:
            arguments = [arg for arg, kind in signature.items() if kind != "constexpr"]
            bits = dict(zip(arguments, bits_of_each_pointer(built.asm["ptx"]), strict=False))
            map_bits = {arg: bits.get(arg, 0) for arg in entry.maps if arg in arguments}
        use = usage_of(built)
        usage[name] = {"shared": use.shared, "stack": use.stack, "map_bits": map_bits}
    print(json.dumps(usage))


if __name__ == "__main__":
    main(*sys.argv[1:])
