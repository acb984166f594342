"""Count, in Triton's interpreter, the bytes that kernels load and store of whole maps.

A map is any tensor argument of a launch that holds as many elements as x: also one that a launcher makes for itself.
An access is known by its address; lanes that are masked out count nothing, nor do tensors of O(N (C + R) + C R).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import interpreter

# What touches no element: it makes a tensor, or a view as the interpreter takes one of each argument.
FREE = {"aten.empty_like.default", "aten.new_empty.default", "aten.set_.source_Storage_storage_offset"}


class Traffic:
    """What one call moved, in units of T, the bytes of x."""

    def __init__(self, x: Tensor) -> None:
        self.elements, self.unit = x.numel(), x.numel() * x.element_size()
        self.launches: list[str] = []
        self.loaded: Counter[tuple[str, str]] = Counter()  # (kernel, argument) -> bytes asked for
        self.stored: Counter[tuple[str, str]] = Counter()
        self.torch_ops: list[str] = []  # those of torch's own that read or write a map
        self._ranges: list[
            tuple[str, int, int, int]
        ] = []  # argument, first address, end, bytes an element; this launch's
        self._touched: dict[tuple[int, tuple[int, ...]], list[np.ndarray[Any, Any]]] = {}  # by launch and program

    @property
    def issued(self) -> float:
        """All that was asked for."""
        return (self.loaded.total() + self.stored.total()) / self.unit

    @property
    def distinct(self) -> float:
        """As issued, but an address counts once a program: what memory sees if a program's sample stays in cache."""
        return sum(np.unique(np.concatenate(parts)).size for parts in self._touched.values()) / self.elements

    def per_kernel(self) -> dict[str, float]:
        """Issued, by kernel."""
        total: Counter[str] = Counter()
        for (kernel, _), moved in (self.loaded + self.stored).items():
            total[kernel] += moved
        return {kernel: moved / self.unit for kernel, moved in total.items()}

    def launch(self, name: str, arguments: dict[str, Any]) -> None:
        self.launches.append(name)
        self._ranges = [
            (arg, t.data_ptr(), t.data_ptr() + t.numel() * t.element_size(), t.element_size())
            for arg, t in arguments.items()
            if isinstance(t, Tensor) and t.numel() == self.elements
        ]

    def access(self, moved: Counter[tuple[str, str]], addresses: Any, mask: Any, program: tuple[int, ...]) -> None:
        live = np.broadcast_to(addresses, np.broadcast_shapes(addresses.shape, mask.shape))[
            np.broadcast_to(mask, np.broadcast_shapes(addresses.shape, mask.shape)).astype(bool)
        ]
        for arg, start, end, itemsize in self._ranges:
            inside = live[(live >= start) & (live < end)]
            if inside.size:
                moved[self.launches[-1], arg] += inside.size * itemsize
                self._touched.setdefault((len(self.launches), program), []).append(inside)


class _TorchOps(TorchDispatchMode):
    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic = traffic

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in (*args, result) if isinstance(t, Tensor)]
        if str(func) not in FREE and any(t.numel() == self.traffic.elements for t in tensors):
            self.traffic.torch_ops.append(str(func))
        return result


@contextmanager
def counted(x: Tensor, monkeypatch: Any) -> Iterator[Traffic]:
    """Counts what is launched within. x: any of the maps; no small tensor may hold as many elements."""
    traffic = Traffic(x)
    builder, executor = type(interpreter.interpreter_builder), interpreter.GridExecutor
    load, store, call = builder.create_masked_load, builder.create_masked_store, executor.__call__

    def counted_load(self, ptrs, mask, *rest):
        traffic.access(traffic.loaded, ptrs.data, mask.data, self.grid_idx)
        return load(self, ptrs, mask, *rest)

    def counted_store(self, ptrs, value, mask, *rest):
        traffic.access(traffic.stored, ptrs.data, mask.data, self.grid_idx)
        return store(self, ptrs, value, mask, *rest)

    def counted_call(self, *args, **kwargs):
        traffic.launch(self.fn.__name__, dict(zip(self.arg_names, args, strict=False)) | kwargs)
        return call(self, *args, **kwargs)

    with monkeypatch.context() as patch, _TorchOps(traffic):
        patch.setattr(builder, "create_masked_load", counted_load)
        patch.setattr(builder, "create_masked_store", counted_store)
        patch.setattr(executor, "__call__", counted_call)
        yield traffic
