"""Training on a CPU keeps the memory that a step frees for the next step.

glibc gives large blocks back to the system as soon as they are free. A training step then takes its activations from
the system anew, which fills each page with zeros first. https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

import ctypes
import os

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
