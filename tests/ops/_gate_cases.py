"""What the tests of channel_gate and of CBAM's gates share: functions of tensors alone, inputs, the comparison."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch.autograd import forward_ad

from seattn.ops import (
    cbam_channel_gate,
    cbam_channel_gate_reference,
    cbam_spatial_gate,
    cbam_spatial_gate_reference,
    channel_gate,
    channel_gate_reference,
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
GATE_TOLERANCES = {  # channel_gate has fewer steps
    ("torch", torch.float64): (1e-15, 1e-14),
    ("torch", torch.float32): (2e-7, 2e-6),
    ("torch", torch.float16): (1e-3, 1e-3),
    ("torch", torch.bfloat16): (8e-3, 8e-3),
    ("triton", torch.float32): (2e-7, 2e-6),
    ("triton", torch.float16): (5e-4, 2e-6),
    ("triton", torch.bfloat16): (8e-3, 2e-6),
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
    """An op and its reference as functions of (x, *weights), and the shapes of the weights for B images, C channels."""

    op: Callable[..., torch.Tensor]
    reference: Callable[..., torch.Tensor]
    weights: Callable[[int, int], list[tuple[int, ...] | None]]
    tolerances: dict[tuple[str, torch.dtype], tuple[float, float]] = TOLERANCES


def spatial(fn, x, weight, bn_weight, bn_bias, *, norm, **names):
    """The spatial gate with running statistics of its own: those that `fn` updates are thrown away."""
    running = (None, None) if norm == "none" else (weight.new_tensor([0.3]), weight.new_tensor([2.5]))
    return fn(x, weight, *running, bn_weight, bn_bias, training=norm == "batch", **names)


def case_of(op, reference, weights, **names):
    return Gate(partial(op, **names), partial(reference, **names), weights)


channel = partial(case_of, cbam_channel_gate, cbam_channel_gate_reference)
spatial_gate = partial(case_of, partial(spatial, cbam_spatial_gate), partial(spatial, cbam_spatial_gate_reference))
CASES = {
    "gate": Gate(channel_gate, channel_gate_reference, lambda b, c: [(b, c)], GATE_TOLERANCES),
    "channel": channel(lambda b, c: [(5, c), (5,), (c, 5), (c,)]),
    "channel-no-bias": channel(lambda b, c: [(2 * c, c), None, (c, 2 * c), None], act="silu"),
    "spatial-no-norm": spatial_gate(lambda b, c: [(1, 2, 1, 1), None, None], norm="none", max_first=False),
    "spatial-frozen": spatial_gate(lambda b, c: [(1, 2, 5, 5), (1,), (1,)], norm="frozen"),
    "spatial-batch": spatial_gate(lambda b, c: [(1, 2, 7, 7), (1,), (1,)], norm="batch"),
    "spatial-not-affine": spatial_gate(lambda b, c: [(1, 2, 3, 3), None, None], norm="batch", eps=1e-3),
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
    weights = [
        None if size is None else torch.randn(size, generator=rng) / math.prod(size[1:]) ** 0.5
        for size in case.weights(*shape[:2])
    ]
    return [x, *(None if w is None else w.to(device, wide) for w in weights)]


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
        limit = case.tolerances[implementation, dtype][index > 1]
        assert a.shape == b.shape
        error, scale = (a.double() - b).norm(), b.norm()
        assert error <= limit * scale, f"result {index}: {error / scale:.2e} of float64's RMS, allowed {limit}"


def transformed(kind, fn, x):
    """fn under a function transform of torch.func or in forward mode."""
    if kind == "jvp":
        return torch.func.jvp(fn, (x,), (torch.ones_like(x),))[1]
    if kind == "grad":
        return torch.func.grad(lambda t: fn(t).square().sum())(x)
    if kind == "vmap":
        return torch.func.vmap(fn)(torch.stack([x, 2 * x]))
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(fn(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
