"""Every op once, forward and backward, on a small odd shape: `python -m benchmarks.small_step`.

It is small enough for a memory checker to finish in a minute. Each result is compared with the reference's.
"""

import sys

import torch

from benchmarks.speed.ops import OPS
from benchmarks.speed.timing import DTYPES, FORMATS
from seattn import get_kernels, set_kernels

SHAPE = (3, 33, 7, 5)
TOLERANCES = {"float32": 1e-4, "bfloat16": 1e-2}  # of the root mean square


def small_step(device: torch.device) -> int:
    """Run and compare all ops; return the number of comparisons.

    Raises:
        AssertionError: if a value or a gradient differs from the reference's.
    """
    compared = 0
    for name, op in OPS.items():
        for dtype, limit in TOLERANCES.items():
            for memory_format in FORMATS.values():
                torch.manual_seed(0)
                x, shortcut, dy = (
                    torch.randn(SHAPE, device=device, dtype=DTYPES[dtype]).contiguous(memory_format=memory_format)
                    for _ in range(3)
                )
                x.requires_grad_()
                pair = op.make(SHAPE[1], x)
                results = []
                for kernels in (get_kernels(), "reference"):
                    with set_kernels(kernels):
                        y = pair.ours(x, shortcut)
                        results.append((y.detach(), *torch.autograd.grad(y, x, dy)))
                for what, ours, reference in zip(("y", "dx"), results[0], results[1], strict=True):
                    error = _relative(ours, reference)
                    assert error < limit, f"{name} {dtype} {memory_format}: {what} differs by {error:.2g}"
                    compared += 1
    return compared


def _relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    difference = (ours.double() - reference.double()).square().mean()
    return float((difference / reference.double().square().mean()).sqrt())


if __name__ == "__main__":
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{small_step(device)} comparisons on {device.type}")
    sys.exit(0)
