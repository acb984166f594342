"""Which implementation of an op runs: the Triton kernel, the hand-written torch functions, or the reference.

The choice is one value for the process: "auto", "triton", "torch" or "reference". Its first value is the environment
variable SEATTN_KERNELS. "auto" takes the Triton kernel on a CUDA device and the torch functions elsewhere. It takes the
reference under function transforms, and under torch.compile and torch.export off CUDA, where inductor fuses it.
"""

import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
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
# Read once for the process, as Triton does when it decorates a kernel.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def _checked(kernels: str, where: str) -> str:
    if kernels not in KERNEL_CHOICES:
        raise ValueError(f"{where} must be one of {', '.join(KERNEL_CHOICES)}; got {kernels!r}")
    return kernels


_kernels = _checked(os.environ.get("SEATTN_KERNELS") or "auto", "the environment variable SEATTN_KERNELS")


def set_kernels(kernels: str) -> AbstractContextManager[object]:
    """Choose the implementation for the process by a plain call, or for one `with` block, which restores the former.

    Args:
        kernels: "auto"; "triton", the kernels or an error; "torch", the same steps written by hand in PyTorch, with
            their own backward, on any device; "reference", the definition, differentiated by autograd.

    Raises:
        ValueError: for any other value.
    """
    global _kernels
    former, _kernels = _kernels, _checked(kernels, "kernels")
    restore = ExitStack()
    restore.callback(set_kernels, former)
    return restore


def get_kernels() -> str:
    """The current choice: "auto", "triton", "torch" or "reference"."""
    return _kernels


def choose(x: Tensor, unsupported: Callable[[Tensor], str | None]) -> Implementation:
    """The implementation for `x`.

    Args:
        x: the input that decides device, dtype and size.
        unsupported: gives the reason why the op's kernel cannot take x, or None if it can.

    Raises:
        RuntimeError: if the choice is "triton" or "torch" and that implementation cannot run.
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
    """True only if x is a plain fp32 or float64 tensor, `choose` gives "torch", no gradient is wanted, autocast is off.

    On a small map of a CPU the Python between the steps takes as long as the steps, so all of this is one expression.
    """
    return (
        is_cpu_inference_in_any_dtype(x)
        and (x.dtype == torch.float32 or x.dtype == torch.float64)
        and not is_autocast_enabled("cpu")
    )


def is_cpu_inference_in_any_dtype(x: Tensor) -> bool:
    """`is_cpu_inference`, also in 16 bit and under autocast."""
    return (
        type(x) is Tensor
        and not is_grad_enabled()
        and x.is_cpu
        and _kernels == "auto"
        and not is_compiling()
        and not is_tracing()
        and _no_own_backward(x) is None
    )


def _no_triton(x: Tensor) -> str | None:
    if not TRITON_INSTALLED:
        return "triton is not installed"
    if not x.is_cuda and not (INTERPRETED and x.device.type == "cpu"):
        return f"the input is on {x.device.type}, not on a CUDA device (and TRITON_INTERPRET=1 is not set)"
    return None


def transforms_are_active() -> bool:
    """Whether a functorch transform or forward-mode AD is active."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _no_own_backward(x: Tensor) -> str | None:
    # Through a custom op, func.jvp and dual levels give zero tangents without an error; func.grad and vmap fail.
    if transforms_are_active():
        return "a functorch transform or forward-mode AD is active, which only the reference supports"
    if x.is_meta:
        return "the input is on the meta device, for which only the reference has shapes"
    return None


def too_large(x: Tensor) -> str | None:
    """Why no kernel takes `x`, or None: an unknown dtype, or an image too large for 32-bit offsets."""
    if x.dtype not in KERNEL_DTYPES:
        return f"the kernel takes float32, float16 and bfloat16, not {x.dtype}"
    if x.shape[1] * x.shape[2] * x.shape[3] >= 2**31:
        return f"the kernel takes images below 2**31 elements, not {tuple(x.shape[1:])}"
    return None
