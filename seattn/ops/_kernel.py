"""Which implementation of an op runs: the Triton kernel or the reference.

The choice is one value for the process: "auto" (the Triton kernel where it can run, else the reference), "triton" (the
kernel, or an error) or "reference". It starts from the environment variable SEATTN_KERNELS.
"""

import importlib.util
import os
from collections.abc import Callable
from types import TracebackType

import torch
from torch import Tensor
from torch.autograd import forward_ad

KERNEL_CHOICES = ("auto", "triton", "reference")
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
        kernels: "auto", "triton" or "reference".

    Raises:
        ValueError: for any other value.
    """
    global _kernels
    former, _kernels = _kernels, _checked(kernels, "kernels")
    return _Restore(former)


def get_kernels() -> str:
    """The current choice: "auto", "triton" or "reference"."""
    return _kernels


def use_triton(x: Tensor, unsupported: Callable[[Tensor], str | None]) -> bool:
    """Whether the op shall run its Triton kernel on `x`.

    Args:
        x: the input that decides device, dtype and size.
        unsupported: why the op's kernel cannot take `x`, or None if it can.

    Raises:
        RuntimeError: if the choice is "triton" and the kernel cannot run.
    """
    if _kernels == "reference" or (_kernels == "auto" and not x.is_cuda):
        return False
    reason = _cannot_run(x) or unsupported(x)
    if reason is not None and _kernels == "triton":
        raise RuntimeError(f"kernels are set to 'triton', but {reason}; set_kernels('auto') would take the reference")
    return reason is None


def _cannot_run(x: Tensor) -> str | None:
    if not TRITON_INSTALLED:
        return "triton is not installed"
    if not x.is_cuda and not (INTERPRETED and x.device.type == "cpu"):
        return f"the input is on {x.device.type}, not on a CUDA device (and TRITON_INTERPRET=1 is not set)"
    # Through a custom op, func.jvp and dual levels return zero tangents without an error, and func.grad and vmap fail.
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "a functorch transform or forward-mode AD is active, which the kernel does not support"
    return None
