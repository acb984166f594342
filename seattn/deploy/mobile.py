"""Nets as programs for phones and other small devices: ExecuTorch, whose kernels on the CPU are XNNPACK's.

Shapes: B images, C channels, H x W pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.export import ExportedProgram

LARGEST_BATCH = 64  # ExecuTorch reserves the memory of inputs and outputs before the first image


def to_executorch(program: ExportedProgram) -> bytes:
    """The bytes of an ExecuTorch file.

    Args:
        program: takes inputs (B, C, H, W) with an upper bound of B, and was traced on as many images. With fewer,
            torch narrows the bound: it assumes the algorithm that it would choose for the traced number.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    program = constant_prop_pass(program.run_decompositions(_for_xnnpack()))  # weights that are reshaped in the net
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return bytes(lowered.to_executorch().buffer)


def _for_xnnpack() -> dict[Any, Callable[..., Any]]:
    """Operators as those that XNNPACK has, so that it computes the net as a whole."""
    aten = torch.ops.aten

    def mean(x: Tensor, dim: Sequence[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
        if keepdim or dim is None or x.dim() != 4 or sorted(d % 4 for d in dim) != [2, 3]:
            return NotImplemented
        return aten.mean.dim(x, dim, True, dtype=dtype).view(-1, x.shape[1])  # (B, C)

    def view(x: Tensor, size: Sequence[int]) -> Any:
        sizes = [-1 if isinstance(length, SymInt) else length for length in size]
        if sizes == list(size) or sizes.count(-1) > 1:
            return NotImplemented
        return x.view(sizes)

    return {aten.mean.dim: mean, aten.view.default: view}
