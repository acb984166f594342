"""What one call would launch on a GPU, recorded without one: Triton kernels with their arguments, torch's operators.

The call runs on fake tensors, which have shapes and no values. The public ops choose their implementation as in eager
mode on a GPU. An operator of torch counts as one launch, though some launch several kernels. An operator that makes a
view, allocates memory or has an empty result counts as none.
"""

# mypy: disable-error-code="import-untyped"
# (triton has no types)

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime.jit import JITFunction

import seattn
from seattn.core.errors import UserError
from seattn.ops import _kernel, _operator
from seattn.ops._cbam import plane_conv

DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "device"}


@dataclass(frozen=True)
class Launch:
    """One launch of a Triton kernel.

    Args:
        signature: the type of each argument as `triton.compiler.ASTSource` takes it.
        constants: the values of the arguments that are compiled in.
        aligned: the arguments that Triton knows to be divisible by 16.
        options: num_warps, maxnreg, ...
        bytes_moved: the bytes of all tensors among the arguments, each counted once.
    """

    kernel: Any
    grid: tuple[int, ...]
    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[str, ...]
    options: dict[str, Any]
    bytes_moved: int

    @property
    def name(self) -> str:
        return str(self.kernel.__name__)

    @property
    def specialization(self) -> tuple[Any, ...]:
        """What the compiled code depends on."""
        return self.name, self.signature, self.constants, self.aligned, self.options

    @property
    def programs(self) -> int:
        return math.prod(self.grid)

    @property
    def num_warps(self) -> int:
        return int(self.options["num_warps"])

    @property
    def tile(self) -> str:
        """The sizes of the blocks that a program works on: C16 P256."""
        blocks = {key: size for key, size in self.constants.items() if key.startswith("BLOCK_")}
        return " ".join(f"{key.removeprefix('BLOCK_')}{size}" for key, size in blocks.items())


@dataclass(frozen=True)
class Recorded:
    """What a call launched: Triton kernels, and the names of torch's operators."""

    kernels: list[Launch]
    operators: list[str]


class _Operators(TorchDispatchMode):
    """Lists torch's operators that launch a kernel."""

    def __init__(self, into: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.into = into

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        is_view = any(result.alias_info and not result.alias_info.is_write for result in func._schema.returns)
        name = func.overloadpacket.__name__
        is_empty = not any(isinstance(result, Tensor) and result.numel() for result in tree_leaves(results))
        if not (is_view or is_empty or name in ALLOCATIONS):
            self.into.append(name)
        return results


@contextmanager
def fake_gpu() -> Iterator[FakeTensorMode]:
    """A `with` block in which all tensors are fake, and the ops choose their Triton kernels.

    The fake tensors are on the CPU, because autograd asks the driver about any other device. The three functions of
    seattn that ask for the device are replaced.

    Raises:
        UserError: if kernels run in Triton's interpreter, which compiles nothing.
    """
    if _kernel.INTERPRETED:
        raise UserError("TRITON_INTERPRET is set, and interpreted kernels cannot be compiled; unset it")
    with (
        mock.patch.object(_kernel, "_no_triton", return_value=None),
        mock.patch.object(_operator, "_is_traced", return_value=False),
        mock.patch.object(plane_conv, "_suits_depthwise", return_value=False),
        seattn.set_kernels("triton"),
        FakeTensorMode() as mode,
    ):
        yield mode


def record(work: Callable[[], object]) -> Recorded:
    """What `work`, called once within `fake_gpu`, would launch."""
    recorded = Recorded([], [])

    def run(kernel: Any, *args: Any, grid: tuple[int, ...], warmup: bool, **options: Any) -> None:
        recorded.kernels.append(_launch(kernel, grid, args, options))

    with mock.patch.object(JITFunction, "run", run), _Operators(recorded.operators):
        work()
    return recorded


def _launch(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], options: dict[str, Any]) -> Launch:
    """A launch as Triton specialises it: an integer 1 is a constant, a multiple of 16 is marked as such."""
    values = dict(zip(kernel.arg_names, args, strict=False))
    values |= {name: options.pop(name) for name in kernel.arg_names if name in options}
    fixed = {kernel.arg_names[i] for i in kernel.constexprs}
    signature, constants, aligned = {}, {}, []
    for name in kernel.arg_names:  # in this order, which is that of the compiled arguments
        value = values[name]
        if name in fixed or value is None or value is True or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[name] = f"*{DTYPES[value.dtype]}"
            aligned.append(name)  # memory of torch begins at a multiple of 16 bytes
        elif isinstance(value, int):
            signature[name] = "i32" if value < 2**31 else "i64"
            aligned += [name] * (value % 16 == 0)
        else:
            signature[name] = "fp32"
    tensors = {id(value): value for value in values.values() if isinstance(value, Tensor)}
    moved = sum(value.numel() * value.element_size() for value in tensors.values())
    return Launch(kernel, grid, signature, constants, tuple(aligned), options, moved)
