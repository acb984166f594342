"""Nets as programs for phones and other small devices: ExecuTorch, with XNNPACK's kernels for the CPU, and Core ML.

Shapes: B images, C channels, H x W pixels.
"""

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.export import ExportedProgram

from seattn.deploy.metadata import INPUT, KEY

LARGEST_BATCH = 64  # both formats need a bound; ExecuTorch reserves the memory of inputs and outputs by it


def to_executorch(program: ExportedProgram) -> bytes:
    """The bytes of an ExecuTorch file.

    Args:
        program: takes inputs (B, C, H, W) with an upper bound of B, and was traced on exactly that number of images.
            Traced on fewer, torch narrows the bound: it assumes the algorithm that it would choose for that number.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    program = constant_prop_pass(program.run_decompositions(_for_xnnpack()))  # weights that are reshaped in the net
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return bytes(lowered.to_executorch().buffer)


def _for_xnnpack() -> dict[Any, Callable[..., Any]]:
    """Decompositions into operators that XNNPACK has, so that XNNPACK computes the whole net."""
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


def save_coreml(program: ExportedProgram, size: tuple[int, int, int], path: Path, metadata: str) -> None:
    """Write a Core ML package, which is a folder, with weights and arithmetic in float32, for iOS 17 and macOS 14.

    Args:
        program: takes inputs (B, C, H, W).
        size: (C, H, W).
        metadata: JSON.
    """
    import coremltools

    model = coremltools.convert(
        program.run_decompositions({}),
        inputs=[coremltools.TensorType(name=INPUT, shape=(coremltools.RangeDim(1, LARGEST_BATCH), *size))],
        outputs=[coremltools.TensorType(name="logits")],
        minimum_deployment_target=coremltools.target.iOS17,
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    model.user_defined_metadata[KEY] = metadata
    model.save(str(path))
    (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # coremltools' own, with ExecuTorch


def is_our_coreml(path: Path) -> bool:
    """Whether `path` is a Core ML package that `save_coreml` wrote, and has nothing else in it."""
    if {file.name for file in path.iterdir()} != {"Data", "Manifest.json"}:
        return False
    with redirect_stderr(StringIO()):  # the log of its import
        import coremltools
    try:
        return KEY in coremltools.utils.load_spec(str(path)).description.metadata.userDefined
    except Exception:  # coremltools raises errors of many types here
        return False
