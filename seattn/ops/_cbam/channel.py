"""torch.ops.seattn.cbam_channel_fwd and _bwd: pooling by mean and maximum, the gate, the product.

    pooled = [mean_p x, max_p x];  hidden[i] = W1 pooled[i] + b1
    scale  = gate(W2 (act(hidden[0]) + act(hidden[1])) + 2 b2);  y = x scale       W2 is linear: used once, on the sum
Backward:
    dz = gate'(scale) sum_p dy x;  dhidden[i] = (dz W2) act'(hidden[i]);  dpooled[i] = dhidden[i] W1
    dx = dy scale + dpooled[0] / P + (dpooled[1] / ties where x is the maximum),  ties = how many pixels hold it
Shapes: N images, C channels, P = H W pixels, R hidden channels; x, y (N, C, H, W), pooled (2, N, C), hidden (2, N, R),
scale (N, C); all but the maps in fp32 (float64 for a float64 x).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seattn.ops._maps import column, compute_dtype, max_pixels, mean_pixels, scale_add, scale_channels, sum_pixels
from seattn.ops._operator import Operator, Outputs, define, dense_like
from seattn.ops._tail.activations import act_fn, act_grad, gate_fn, gate_grad


def _fwd_torch(
    x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, dtype = dense_like(x, x), compute_dtype(x)
    pooled = torch.stack([mean_pixels(x, dtype), max_pixels(x).to(dtype)])
    hidden = F.linear(pooled, w1, b1)
    scale = gate_fn(F.linear(act_fn(hidden, act).sum(0), w2, None if b2 is None else 2 * b2), gate)
    return scale_channels(x, scale), pooled, hidden, scale


def _bwd_torch(
    dy: Tensor,
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    pooled: Tensor,
    hidden: Tensor,
    scale: Tensor,
    act: str,
    gate: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x = dense_like(x, x)
    dy = dense_like(dy, x)
    dx = dy * x  # the buffer of the result; first it holds the product
    dz = gate_grad(sum_pixels(dx, scale.dtype), scale, gate)
    dh = act_grad((dz @ w2).expand_as(hidden), hidden, act)
    dpooled = dh @ w1
    # Ones and zeros in the dtype of x are made and summed 8 times faster on a CPU than a mask of bools.
    at_peak = torch.eq(x, column(pooled[1], x), out=torch.empty_like(x))
    ties = sum_pixels(at_peak, scale.dtype)  # (N, C); 16 bit could not hold the count
    scale_add(dpooled[0] / (x.shape[2] * x.shape[3]), dy, scale, out=dx)
    scale_add(dx, at_peak, dpooled[1] / ties, out=dx)
    dw1 = dh.flatten(0, 1).t() @ pooled.flatten(0, 1)
    return dx, dw1, dh.sum((0, 1)), dz.t() @ act_fn(hidden, act).sum(0), 2 * dz.sum(0)


def _fwd_triton(
    x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str
) -> Outputs:
    from seattn_kernels import cbam_channel as kernels  # needs triton, which `import seattn` must not

    b1, b2 = (None if b is None else b.contiguous() for b in (b1, b2))
    return kernels.cbam_channel_fwd(dense_like(x, x), w1.contiguous(), b1, w2.contiguous(), b2, act, gate)


def _bwd_triton(dy: Tensor, x: Tensor, w1: Tensor, w2: Tensor, *others: Any) -> Outputs:
    from seattn_kernels import cbam_channel as kernels

    x = dense_like(x, x)
    return kernels.cbam_channel_bwd(dense_like(dy, x), x, w1.contiguous(), w2.contiguous(), *others)


def _fwd_fake(x: Tensor, w1: Tensor, *_: Any) -> Outputs:
    images, channels = x.shape[:2]
    pooled = x.new_empty((2, images, channels), dtype=compute_dtype(x))
    hidden = pooled.new_empty((2, images, w1.shape[0]))
    return torch.empty_like(dense_like(x, x)), pooled, hidden, pooled.new_empty((images, channels))


def _bwd_fake(dy: Tensor, x: Tensor, w1: Tensor, w2: Tensor, pooled: Tensor, *_: Any) -> Outputs:
    weight_grads = (pooled.new_empty(shape) for shape in (w1.shape, w1.shape[:1], w2.shape, w2.shape[:1]))
    return torch.empty_like(dense_like(x, x)), *weight_grads


def _save(inputs: tuple[Any, ...], outputs: Outputs) -> tuple[tuple[Tensor | None, ...], tuple[Any, ...]]:
    x, w1, _, w2, _, act, gate = inputs
    return (x, w1, w2, *outputs[1:]), (act, gate)


cbam_channel = define(
    Operator(
        name="cbam_channel",
        fwd={"torch": _fwd_torch, "triton": _fwd_triton},
        bwd={"torch": _bwd_torch, "triton": _bwd_triton},
        fwd_fake=_fwd_fake,
        bwd_fake=_bwd_fake,
        save=_save,
    )
)
