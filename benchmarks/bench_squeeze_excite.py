"""Squeeze-excite against timm's SEModule with the same weights, forward and backward, on the device that is here.

`make bench` prints one group a shape: the ratio within a group is what counts, both ran in one process. On a CPU this
compares the reference, not the kernel.
"""

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from timm.layers import SEModule
from torch import nn

from seattn.layers import SqueezeExcite

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(128, 16, 32, 32), (128, 64, 8, 8), (32, 256, 14, 14)]  # (B, C, H, W)


def _step(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x).backward(torch.ones_like(x))
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return run


@pytest.mark.parametrize("kind", ["seattn", "timm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=["x".join(map(str, shape)) for shape in SHAPES])
def test_forward_and_backward(
    benchmark: BenchmarkFixture, kind: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    benchmark.group = f"{shape} {dtype} channels_last {DEVICE}"
    make = SqueezeExcite if kind == "seattn" else SEModule
    layer = make(shape[1], rd_divisor=8).to(DEVICE, dtype)
    x = torch.randn(shape, device=DEVICE, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    benchmark(_step(layer, x))
    assert x.grad is not None
