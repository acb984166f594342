"""Signals in a process that uses OpenVINO.

Its plugin for CPUs gives the thread an alternate stack for signal handlers, and frees this memory with the last object
that uses the plugin. Where two plugins overlap, the thread is left with freed memory, and the next signal that Python
handles (a child that ends, Ctrl-C) ends the process: https://man7.org/linux/man-pages/man2/sigaltstack.2.html
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_STACK_BYTES = 64  # more than a stack_t has on any system


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """A `with` block, or a decorator, after which the thread has the alternate stack that it had before."""
    try:
        sigaltstack = ctypes.CDLL(None).sigaltstack
    except (AttributeError, OSError, TypeError):  # Windows has none
        yield
        return
    before = ctypes.create_string_buffer(_STACK_BYTES)
    sigaltstack(None, before)
    try:
        yield
    finally:
        sigaltstack(before, None)
