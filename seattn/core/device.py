"""The device of a run: found by its name, the dtype of its autocast, and memory that its steps free and use again.

glibc gives large blocks back to the system as soon as they are free. A training step then takes its activations from
the system again, which fills each page with zeros first. https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

import ctypes
import logging
import os
from typing import TYPE_CHECKING

import torch

from seattn.core.errors import UserError, first_line

if TYPE_CHECKING:
    from seattn.core.recipe import Recipe


_logger = logging.getLogger("seattn")
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast_dtype(recipe: "Recipe", device: torch.device) -> torch.dtype | None:
    """What autocast computes in, or None for float32; a warning where the recipe says bfloat16 and this CPU has none.

    Autocast is for speed. A CPU without bfloat16 computes it one number at a time: a step of SE-ResNet-20 took 12 times
    as long as in float32 (128 images, one thread, AVX2).
    """
    if not recipe.amp:
        return None
    if recipe.amp_dtype == "bfloat16" and device.type == "cpu" and not cpu_has_bfloat16():
        _logger.warning("this CPU has no bfloat16, in which it would be many times slower: computing in float32")
        return None
    return _DTYPES[recipe.amp_dtype]


def cpu_has_bfloat16() -> bool:
    """Whether convolutions in bfloat16 are oneDNN's here, with AVX-512, AMX or Arm's instructions for it."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_LARGEST_TRIM = 2**31 - 1  # bytes; an int is all that mallopt takes
_LARGEST_MMAP = 2**25  # bytes; glibc takes no more on 64 bits: larger blocks go on coming from the system
_USERS = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


def keep_freed_memory() -> bool:
    """Tell the C library's allocator, for this process, to keep up to 2 GB of what is freed at the end of its heap.

    Returns:
        Whether it did: not where the environment says how it shall work, nor where the library has no such setting
        (macOS, musl).
    """
    if any(name in os.environ for name in _USERS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Both or none: setting one of them ends glibc's own adjustment of the other.
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP) and mallopt(_TRIM_THRESHOLD, _LARGEST_TRIM))


def torch_device(device: str) -> torch.device:
    """The device called `device`.

    Raises:
        UserError: if there is no such device on this machine.
    """
    try:
        target = torch.device(device)
        torch.empty(0, device=target).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch raises AssertionError where it was built without CUDA, RuntimeError elsewhere
        raise UserError(f"device {device!r} cannot be used here: {first_line(error)}; use cpu") from error
    return target
