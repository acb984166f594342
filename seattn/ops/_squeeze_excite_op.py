"""torch.ops.seattn.squeeze_excite_fwd and _bwd: the Triton kernels as operators that compile, export and differentiate.

On a CUDA device they run Triton. On the CPU they run the same steps in torch, so that an exported graph runs anywhere;
where TRITON_INTERPRET=1 is set they run Triton there too. Differentiable once; a second derivative raises.

Shapes: B images, C channels, H x W pixels, R hidden channels. Weights and biases are fp32.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from seattn.ops._kernel import INTERPRETED
from seattn.ops.squeeze_excite import act_fn, gate_fn

_FwdOut = tuple[Tensor, Tensor, Tensor, Tensor]
_BwdOut = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _dense(x: Tensor, like: Tensor) -> Tensor:
    """x in the layout that `like` is computed in: NCHW, channels_last, or the nearer of the two, which costs a copy.

    The kernel, the CPU version and the fake all go through here: their outputs must have the same strides.
    """
    channels_last = not like.is_contiguous() and like.stride(1) == 1
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _device_of(x: Tensor) -> AbstractContextManager[Any]:
    # Triton launches on the current device, which need not be that of x.
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _fwd_triton(
    x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str
) -> _FwdOut:
    from seattn_kernels import squeeze_excite as kernels  # needs triton, which `import seattn` must not

    with _device_of(x):
        return kernels.squeeze_excite_fwd(_dense(x, x), w1, b1, w2, b2, act, gate)


def _bwd_triton(
    dy: Tensor,
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    mean: Tensor,
    hidden: Tensor,
    scale: Tensor,
    act: str,
    gate: str,
) -> _BwdOut:
    from seattn_kernels import squeeze_excite as kernels

    with _device_of(x), torch.autocast(x.device.type, enabled=False):
        return kernels.squeeze_excite_bwd(_dense(dy, x), _dense(x, x), w1, w2, mean, hidden, scale, act, gate)


def _fwd_torch(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str) -> _FwdOut:
    with torch.autocast(x.device.type, enabled=False):
        wide = _dense(x, x).float()
        mean = wide.mean((2, 3))  # (B, C)
        hidden = torch.nn.functional.linear(mean, w1, b1)  # (B, R)
        scale = gate_fn(torch.nn.functional.linear(act_fn(hidden, act), w2, b2), gate)  # (B, C)
        return (wide * scale[:, :, None, None]).to(x.dtype), mean, hidden, scale


def _bwd_torch(
    dy: Tensor,
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    mean: Tensor,
    hidden: Tensor,
    scale: Tensor,
    act: str,
    gate: str,
) -> _BwdOut:
    with torch.autocast(x.device.type, enabled=False):
        wide_dy = _dense(dy, x).float()
        dz = (wide_dy * _dense(x, x)).sum((2, 3)) * _gate_grad(scale, gate)  # (B, C)
        dh = _act_grad(dz @ w2, hidden, act)  # (B, R)
        shift = (dh @ w1) / (x.shape[2] * x.shape[3])  # (B, C)
        dx = (wide_dy * scale[:, :, None, None] + shift[:, :, None, None]).to(x.dtype)
        return dx, dh.t() @ mean, dh.sum(0), dz.t() @ act_fn(hidden, act), dz.sum(0)


def _gate_grad(scale: Tensor, gate: str) -> Tensor:
    if gate == "sigmoid":
        return scale * (1 - scale)
    if gate == "two_sigmoid":
        return scale * (1 - scale / 2)
    assert gate == "hard_sigmoid"
    return ((scale > 0) & (scale < 1)) / 6


def _act_grad(grad: Tensor, hidden: Tensor, act: str) -> Tensor:
    aten = torch.ops.aten
    if act == "relu":
        return aten.threshold_backward(grad, hidden, 0)  # type: ignore[no-any-return]
    if act == "silu":
        return aten.silu_backward(grad, hidden)  # type: ignore[no-any-return]
    if act == "gelu":
        return aten.gelu_backward(grad, hidden)  # type: ignore[no-any-return]
    if act == "hard_swish":
        return aten.hardswish_backward(grad, hidden)  # type: ignore[no-any-return]
    assert act == "identity"
    return grad


_ARGS = "Tensor x, Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, str act, str gate"
_BWD_ARGS = "Tensor dy, Tensor x, Tensor w1, Tensor w2, Tensor mean, Tensor hidden, Tensor scale, str act, str gate"
_fwd_op = custom_op(
    "seattn::squeeze_excite_fwd",
    _fwd_triton,
    mutates_args=(),
    device_types="cuda",
    schema=f"({_ARGS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
_bwd_op = custom_op(
    "seattn::squeeze_excite_bwd",
    _bwd_triton,
    mutates_args=(),
    device_types="cuda",
    schema=f"({_BWD_ARGS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_fwd_op.register_kernel("cpu")(_fwd_triton if INTERPRETED else _fwd_torch)
_bwd_op.register_kernel("cpu")(_bwd_triton if INTERPRETED else _bwd_torch)


@_fwd_op.register_fake
def _fwd_fake(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str) -> _FwdOut:
    mean = x.new_empty((x.shape[0], x.shape[1]), dtype=torch.float32)
    hidden = x.new_empty((x.shape[0], w1.shape[0]), dtype=torch.float32)
    return torch.empty_like(_dense(x, x)), mean, hidden, torch.empty_like(mean)


@_bwd_op.register_fake
def _bwd_fake(
    dy: Tensor,
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    mean: Tensor,
    hidden: Tensor,
    scale: Tensor,
    act: str,
    gate: str,
) -> _BwdOut:
    channels, rd = w2.shape
    dx = torch.empty_like(_dense(x, x))
    return dx, w1.new_empty((rd, channels)), w1.new_empty(rd), w2.new_empty((channels, rd)), w2.new_empty(channels)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: _FwdOut) -> None:
    x, w1, b1, w2, b2, ctx.act, ctx.gate = inputs
    _, mean, hidden, scale = output
    ctx.has_b1, ctx.has_b2 = b1 is not None, b2 is not None
    ctx.mark_non_differentiable(mean, hidden, scale)
    ctx.save_for_backward(x, w1, w2, mean, hidden, scale)


def _backward(ctx: Any, dy: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    op = torch.ops.seattn.squeeze_excite_bwd.default
    dx, dw1, db1, dw2, db2 = op(dy, *ctx.saved_tensors, ctx.act, ctx.gate)
    return dx, dw1, db1 if ctx.has_b1 else None, dw2, db2 if ctx.has_b2 else None, None, None


_fwd_op.register_autograd(_backward, setup_context=_setup_context)
