"""What the tests of CBAM's two gates share: the gates as functions of tensors alone, their inputs, the comparison."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch

from seattn.ops import (
    cbam_channel_gate,
    cbam_channel_gate_reference,
    cbam_spatial_gate,
    cbam_spatial_gate_reference,
    set_kernels,
)

# RMS of the difference over RMS of float64's result, for y and dx, and for the gradients of the weights. In 16 bit
# torch rounds the gate and the products under the sums too; bfloat16 leaves room for the interpreter, which truncates.
TOLERANCES = {
    ("torch", torch.float64): (1e-14, 1e-13),
    ("torch", torch.float32): (2e-6, 2e-5),
    ("torch", torch.float16): (1e-3, 3e-3),
    ("torch", torch.bfloat16): (8e-3, 2e-2),
    ("triton", torch.float32): (2e-6, 2e-5),
    ("triton", torch.float16): (5e-4, 2e-5),
    ("triton", torch.bfloat16): (8e-3, 2e-5),
}
SHAPES = {  # (B, C, H, W)
    "all-one": (1, 1, 1, 1),
    "two-channels": (2, 2, 1, 3),
    "odd": (3, 7, 5, 3),
    "one-pixel": (7, 33, 1, 1),
    "prime-C-33x33": (1, 13, 33, 33),
    "many-tiles": (1, 67, 9, 9),
}
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
IMPLEMENTATIONS = ("torch", "triton")


class Gate(NamedTuple):
    """An op and its reference as functions of (x, *weights), and the shapes of the weights for C channels."""

    op: Callable[..., torch.Tensor]
    reference: Callable[..., torch.Tensor]
    weights: Callable[[int], list[tuple[int, ...] | None]]


def spatial(fn, x, weight, bn_weight, bn_bias, *, norm, **names):
    """The spatial gate with running statistics of its own: those that `fn` updates are thrown away."""
    running = (None, None) if norm == "none" else (weight.new_tensor([0.3]), weight.new_tensor([2.5]))
    return fn(x, weight, *running, bn_weight, bn_bias, training=norm == "batch", **names)


def spatial_case(weights, **names):
    op = partial(spatial, cbam_spatial_gate, **names)
    return Gate(op, partial(spatial, cbam_spatial_gate_reference, **names), weights)


def bound(fn, **names):
    return partial(fn, **names) if names else fn


def channel_case(weights, **names):
    return Gate(bound(cbam_channel_gate, **names), bound(cbam_channel_gate_reference, **names), weights)


CASES = {
    "channel": channel_case(lambda c: [(5, c), (5,), (c, 5), (c,)]),
    "channel-no-bias": channel_case(lambda c: [(2 * c, c), None, (c, 2 * c), None], act="silu"),
    "spatial-no-norm": spatial_case(lambda c: [(1, 2, 1, 1), None, None], norm="none", max_first=False),
    "spatial-frozen": spatial_case(lambda c: [(1, 2, 5, 5), (1,), (1,)], norm="frozen"),
    "spatial-batch": spatial_case(lambda c: [(1, 2, 7, 7), (1,), (1,)], norm="batch"),
    "spatial-not-affine": spatial_case(lambda c: [(1, 2, 3, 3), None, None], norm="batch", eps=1e-3),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
each_format = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)


def inputs(case, shape=SHAPES["odd"], dtype=torch.float32, memory_format=torch.contiguous_format, device="cpu"):
    """x and the weights. Multiples of 1/2: some maxima are shared, some not. Logits of order 1: no saturated gate."""
    rng = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(shape, generator=rng)).round() / 2
    x = x.to(device, dtype).contiguous(memory_format=memory_format)
    wide = torch.promote_types(dtype, torch.float32)
    weights = [None if s is None else torch.randn(s, generator=rng) for s in case.weights(shape[1])]
    return [x, *(None if w is None else (w / w[0].numel() ** 0.5).to(device, wide) for w in weights)]


def gradient_for(x):
    return torch.linspace(-1, 2, x.numel(), device=x.device).view(x.shape).to(x.dtype)


def run(fn, tensors, dy=None, **names):
    """y and the gradient of every tensor that is given."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    y = fn(*leaves, **names)
    given = [t for t in leaves if t is not None]
    return [y.detach(), *torch.autograd.grad(y, given, gradient_for(y) if dy is None else dy)]


def assert_agrees(implementation, case, tensors, dy=None, **names):
    """The implementation on `tensors` against the reference on the same numbers in float64."""
    dtype = tensors[0].dtype
    dy = gradient_for(tensors[0]) if dy is None else dy
    with set_kernels(implementation):
        got = run(case.op, tensors, dy, **names)
    want = run(case.reference, [None if t is None else t.double() for t in tensors], dy.double(), **names)
    assert [g.dtype for g in got[1:]] == [t.dtype for t in tensors if t is not None]
    assert got[0].dtype == dtype
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        limit = TOLERANCES[implementation, dtype][index > 1]
        assert a.shape == b.shape
        error, scale = (a.double() - b).norm(), b.norm()
        assert error <= limit * scale, f"result {index}: {error / scale:.2e} of float64's RMS, allowed {limit}"
