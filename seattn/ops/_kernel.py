"""Which implementation of an op runs: the Triton kernel, the hand-written torch one, or the reference.

The choice is one value for the process: "auto", "triton", "torch" or "reference"; it starts from the environment
variable SEATTN_KERNELS. "auto" takes the Triton kernel on a CUDA device, the torch functions elsewhere, and the
reference under torch.compile and torch.export off CUDA (inductor fuses it by itself) and under function transforms.
"""

import importlib.util
import os
from collections.abc import Callable
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor, is_autocast_enabled, is_grad_enabled
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.jit import is_tracing

KERNEL_CHOICES = ("auto", "triton", "torch", "reference")
Implementation = Literal["triton", "torch", "reference"]
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
# Triton reads the variable when a kernel is decorated, thus once for the process; so do we.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def _checked(kernels: str, where: str) -> str:
    if kernels not in KERNEL_CHOICES:
        raise ValueError(f"{where} must be one of {', '.join(KERNEL_CHOICES)}; got {kernels!r}")
    return kernels


_kernels = _checked(os.environ.get("SEATTN_KERNELS") or "auto", "the environment variable SEATTN_KERNELS")


class _Restore:
    """Returned by `set_kernels`: leaving a `with` block brings the former choice back."""

    def __init__(self, former: str) -> None:
        self.former = former

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        set_kernels(self.former)


def set_kernels(kernels: str) -> _Restore:
    """Choose the implementation for the process, as a plain call or for one `with` block.

    Args:
        kernels: "auto"; "triton", the kernels or an error; "torch", the same steps written by hand in PyTorch, with
            their own backward, on any device; "reference", the definition, differentiated by autograd.

    Raises:
        ValueError: for any other value.
    """
    global _kernels
    former, _kernels = _kernels, _checked(kernels, "kernels")
    return _Restore(former)


def get_kernels() -> str:
    """The current choice: "auto", "triton", "torch" or "reference"."""
    return _kernels


def choose(x: Tensor, unsupported: Callable[[Tensor], str | None]) -> Implementation:
    """The implementation that shall run on `x`.

    Args:
        x: the input that decides device, dtype and size.
        unsupported: why the op's kernel cannot take `x`, or None if it can.

    Raises:
        RuntimeError: if the choice is "triton" or "torch" and that one cannot run.
    """
    if _kernels == "reference":
        return "reference"
    if _kernels == "torch":
        if (reason := _no_own_backward(x)) is not None:
            raise RuntimeError(f"kernels are set to 'torch', but {reason}; 'auto' would take the reference")
        return "torch"
    if _kernels == "auto" and not x.is_cuda:
        # Traced code is fused by inductor or saved as plain aten; torch.jit.trace cannot save an autograd function.
        traced = is_compiling() or is_tracing()
        return "reference" if traced or _no_own_backward(x) is not None else "torch"
    reason = _no_triton(x) or _no_own_backward(x) or unsupported(x)
    if reason is None:
        return "triton"
    if _kernels == "triton":
        raise RuntimeError(f"kernels are set to 'triton', but {reason}; 'auto' would not use them")
    return "reference" if is_compiling() or _no_own_backward(x) is not None else "torch"


def is_cpu_inference(x: Tensor) -> bool:
    """Whether `choose` gives "torch" for a plain fp32 or float64 tensor, no gradient is wanted and autocast is off.

    On a small map of a CPU the Python between the steps takes as long as the steps: this answers in one expression what
    an op would otherwise ask function by function. False says nothing.
    """
    return (
        type(x) is Tensor
        and not is_grad_enabled()
        and x.is_cpu
        and (x.dtype == torch.float32 or x.dtype == torch.float64)
        and _kernels == "auto"
        and not is_compiling()
        and not is_tracing()
        and not is_autocast_enabled("cpu")
        and _no_own_backward(x) is None
    )


def _no_triton(x: Tensor) -> str | None:
    if not TRITON_INSTALLED:
        return "triton is not installed"
    if not x.is_cuda and not (INTERPRETED and x.device.type == "cpu"):
        return f"the input is on {x.device.type}, not on a CUDA device (and TRITON_INTERPRET=1 is not set)"
    return None


def _no_own_backward(x: Tensor) -> str | None:
    # Through a custom op, func.jvp and dual levels return zero tangents without an error, and func.grad and vmap fail.
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "a functorch transform or forward-mode AD is active, which only the reference supports"
    if x.is_meta:
        return "the input is on the meta device, for which only the reference has shapes"
    return None


def too_large(x: Tensor) -> str | None:
    """Why no kernel takes `x`: a dtype it does not know, or an image that 32-bit offsets do not reach; else None."""
    if x.dtype not in KERNEL_DTYPES:
        return f"the kernel takes float32, float16 and bfloat16, not {x.dtype}"
    if x.shape[1] * x.shape[2] * x.shape[3] >= 2**31:
        return f"the kernel takes images below 2**31 elements, not {tuple(x.shape[1:])}"
    return None
