"""The device of a run, the dtype of its autocast, and an allocator that keeps the memory that a step has freed.

By default glibc returns large blocks to the system as soon as they are free. Each training step must then ask the
system for its memory again, which fills every page with zeros. https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

import ctypes
import logging
import os
import warnings
from typing import TYPE_CHECKING

import torch

from seattn.core.errors import UserError

if TYPE_CHECKING:
    from seattn.core.recipe import Recipe


_logger = logging.getLogger("seattn")
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def default_device() -> str:
    """The name of the default device: "cuda" if torch finds a CUDA device, otherwise "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast_dtype(recipe: "Recipe", device: torch.device) -> torch.dtype | None:
    """The autocast dtype of a run: the recipe's, or None for float32, with a warning on a CPU without bfloat16.

    Autocast is for speed. A CPU without bfloat16 computes it one number at a time: a step of SE-ResNet-20 took 12 times
    as long as in float32 (128 images, one thread, AVX2).
    """
    if not recipe.amp:
        return None
    if recipe.amp_dtype == "bfloat16" and device.type == "cpu" and not cpu_has_bfloat16():
        _logger.warning("this CPU has no bfloat16 and would be many times slower in it: computing in float32")
        return None
    return _DTYPES[recipe.amp_dtype]


def cpu_has_bfloat16() -> bool:
    """Whether oneDNN has convolutions in bfloat16 on this CPU, by AVX-512, AMX or Arm's instructions for it."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_LARGEST_TRIM = 2**31 - 1  # bytes; mallopt takes an int
_LARGEST_MMAP = 2**25  # bytes; the largest that glibc accepts on 64 bits: larger blocks still come from the system
_SETTINGS = (
    "GLIBC_TUNABLES",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TOP_PAD_",
)


def keep_freed_memory() -> bool:
    """Make the C library's allocator keep up to 2 GB of freed memory, for the rest of this process.

    It is meant for a command that trains on a CPU. A library function must not call it: the process is its caller's.

    Returns:
        True if the setting was made; False if an environment variable has set the allocator already, or if the C
        library has no such setting (macOS, musl).
    """
    if any(name in os.environ for name in _SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Both are set or neither: after one is set, glibc no longer adjusts the other by itself.
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP) and mallopt(_TRIM_THRESHOLD, _LARGEST_TRIM))


def torch_device(device: str) -> torch.device:
    """The device called `device`.

    Raises:
        UserError: if there is no such device on this machine.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of outdated names of devices
            target = torch.device(device)
        torch.empty(0, device=target).cpu()
    except Exception as error:  # torch raises errors of many types, whose texts are for developers of torch
        cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        found = ", ".join(["cpu", *cuda]) + ("" if cuda else "; torch finds no CUDA device")
        raise UserError(f"device {device!r} cannot be used here; there is {found}") from error
    return target
