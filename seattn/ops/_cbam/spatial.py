"""torch.ops.seattn.cbam_spatial_fwd and _bwd: pooling over channels, the gate, the product; in torch and Triton.

    pooled = [max_c x, mean_c x], or the other way round;  z = conv(pooled)
    scale  = gate(norm(z));  y = x scale            norm: "none", "frozen" (mean and var given), "batch" (those of z)
Backward:
    dlogits = gate'(scale) sum_c dy x;  dz from it through the norm, dpooled through the convolution
    dx = dy scale + (gradient of the mean) / C + (gradient of the maximum) / ties where x is the maximum
Only the passes over x differ between torch and Triton. What is between them has one or two numbers a pixel and is
shared: torch's convolution, and the batch norm of a map with one channel. Shapes: N images, C channels, H x W pixels,
k x k window; x, y (N, C, H, W), pooled (N, 2, H, W), z, scale (N, H, W), weight (1, 2, k, k), the norm's (1); all but
x, y and their gradients in fp32 (float64 for a float64 x).
"""

from typing import Any

import torch
from torch import Tensor

from seattn.ops._cbam.plane_conv import plane_conv, plane_conv_grads
from seattn.ops._maps import max_channels, mean_channels, sum_channels, weigh_pixels
from seattn.ops._operator import Operator, Outputs, define, dense_like
from seattn.ops._tail.excitation import gate_fn, gate_grad
from seattn.ops._tail.in_torch import compute_dtype


def _fwd_torch(
    x: Tensor,
    weight: Tensor,
    bn_weight: Tensor | None,
    bn_bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    norm: str,
    eps: float,
    gate: str,
    max_first: bool,
) -> Outputs:
    x, dtype = dense_like(x, x), compute_dtype(x)
    planes = [max_channels(x).to(dtype), mean_channels(x, dtype)]
    pooled = torch.stack(planes if max_first else planes[::-1], 1)
    z = plane_conv(pooled, weight)
    batch_mean, batch_var = _statistics(z, norm)
    if norm == "batch":
        mean, var = batch_mean, batch_var
    scale = gate_fn(_normalised(z, bn_weight, bn_bias, mean, var, eps), gate)
    return weigh_pixels(torch.empty_like(x), (x, scale)), batch_mean, batch_var, pooled, z, scale


def _bwd_torch(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bn_weight: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    pooled: Tensor,
    z: Tensor,
    scale: Tensor,
    norm: str,
    eps: float,
    gate: str,
    max_first: bool,
) -> Outputs:
    x = dense_like(x, x)
    dy, dtype = dense_like(dy, x), scale.dtype
    dx = dy * x  # the buffer of the result; first it holds the product
    dlogits = gate_grad(sum_channels(dx, dtype), scale, gate)
    dpooled, *params = _map_grads(dlogits, pooled, z, weight, bn_weight, mean, var, norm, eps)
    of_peak, of_mean = (0, 1) if max_first else (1, 0)
    # 1 and 0 in the dtype of x: on a CPU 8 times faster than a mask of bools, to make and to sum.
    at_peak = torch.eq(x, pooled[:, of_peak, None].to(x.dtype), out=torch.empty_like(x))
    share = dpooled[:, of_peak] / sum_channels(at_peak, dtype)  # (N, H, W)
    weigh_pixels(dx, (dy, scale), (at_peak, share), base=dpooled[:, of_mean] / x.shape[1])
    return dx, *params


def _fwd_triton(
    x: Tensor,
    weight: Tensor,
    bn_weight: Tensor | None,
    bn_bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    norm: str,
    eps: float,
    gate: str,
    max_first: bool,
) -> Outputs:
    from seattn_kernels import cbam_spatial as kernels  # needs triton, which `import seattn` must not

    x = dense_like(x, x)
    pooled = kernels.pool_channels(x, max_first)
    z = plane_conv(pooled, weight)
    batch_mean, batch_var = _statistics(z, norm)
    if norm == "batch":
        mean, var = batch_mean, batch_var
    y, scale = kernels.pixel_gate(x, z, bn_weight, bn_bias, mean, var, eps, gate)
    return y, batch_mean, batch_var, pooled, z, scale


def _bwd_triton(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bn_weight: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    pooled: Tensor,
    z: Tensor,
    scale: Tensor,
    norm: str,
    eps: float,
    gate: str,
    max_first: bool,
) -> Outputs:
    from seattn_kernels import cbam_spatial as kernels

    x = dense_like(x, x)
    dy = dense_like(dy, x)
    dlogits, ties = kernels.reduce_channels(dy, x, scale, pooled, gate, max_first)
    dpooled, *params = _map_grads(dlogits, pooled, z, weight, bn_weight, mean, var, norm, eps)
    return kernels.pixel_gate_grad(dy, x, scale, pooled, dpooled.contiguous(), ties, max_first), *params


def _statistics(z: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the batch, (1) each; empty (0) where the norm does not take them."""
    if norm != "batch":
        return z.new_empty(0), z.new_empty(0)
    var, mean = torch.var_mean(z, correction=0)
    return mean.view(1), var.view(1)


def _normalised(
    z: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None, eps: float
) -> Tensor:
    if mean is None or var is None:
        return z
    factor = (var + eps).rsqrt() if weight is None else (var + eps).rsqrt() * weight
    centred = z - mean
    return centred.mul_(factor) if bias is None else torch.addcmul(bias, centred, factor)


def _map_grads(
    dlogits: Tensor,
    pooled: Tensor,
    z: Tensor,
    weight: Tensor,
    bn_weight: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    norm: str,
    eps: float,
) -> Outputs:
    """(dpooled, dweight, gradient of bn_weight, of bn_bias); the last two empty (0) where there is no norm."""
    dz, dgamma, dbeta = dlogits, z.new_empty(0), z.new_empty(0)
    if mean is not None and var is not None:
        rstd = (var + eps).rsqrt()
        normed = (z - mean).mul_(rstd)
        dbeta, dgamma = dlogits.sum().view(1), (dlogits * normed).sum().view(1)
        if norm == "batch":
            dz = dlogits - (dbeta + normed * dgamma) / z.numel()
        dz = dz * (rstd if bn_weight is None else rstd * bn_weight)
    return *plane_conv_grads(dz, pooled, weight), dgamma, dbeta


def _fwd_fake(
    x: Tensor,
    weight: Tensor,
    bn_weight: Tensor | None,
    bn_bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    norm: str,
    eps: float,
    gate: str,
    max_first: bool,
) -> Outputs:
    images, _, height, width = x.shape
    pooled = x.new_empty((images, 2, height, width), dtype=compute_dtype(x))
    z = pooled.new_empty((images, height, width))
    stats = z.new_empty(1 if norm == "batch" else 0)
    return torch.empty_like(dense_like(x, x)), stats, torch.empty_like(stats), pooled, z, torch.empty_like(z)


def _bwd_fake(dy: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> Outputs:
    norm = rest[6]
    dgamma = weight.new_empty(0 if norm == "none" else 1)
    return torch.empty_like(dense_like(x, x)), weight.new_empty(weight.shape), dgamma, torch.empty_like(dgamma)


def _keep(inputs: tuple[Any, ...], outputs: Outputs) -> tuple[tuple[Tensor | None, ...], tuple[Any, ...]]:
    x, weight, bn_weight, _, mean, var, *static = inputs
    _, batch_mean, batch_var, *kept = outputs
    if static[0] == "batch":
        mean, var = batch_mean, batch_var
    return (x, weight, bn_weight, mean, var, *kept), tuple(static)


def _grads(dy: Tensor, inputs: tuple[bool, ...], constants: tuple[Any, ...], results: Outputs) -> tuple[Any, ...]:
    return *(grad if needed else None for grad, needed in zip(results, inputs, strict=False)), *([None] * 6)


_STATIC = "str norm, float eps, str gate, bool max_first"

cbam_spatial = define(
    Operator(
        name="cbam_spatial",
        fwd_schema=(
            f"(Tensor x, Tensor weight, Tensor? bn_weight, Tensor? bn_bias, Tensor? mean, Tensor? var, {_STATIC}) -> "
            "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
        ),
        bwd_schema=(
            "(Tensor dy, Tensor x, Tensor weight, Tensor? bn_weight, Tensor? mean, Tensor? var, Tensor pooled, "
            f"Tensor z, Tensor scale, {_STATIC}) -> (Tensor, Tensor, Tensor, Tensor)"
        ),
        fwd={"torch": _fwd_torch, "triton": _fwd_triton},
        bwd={"torch": _bwd_torch, "triton": _bwd_triton},
        fwd_fake=_fwd_fake,
        bwd_fake=_bwd_fake,
        keep=_keep,
        grads=_grads,
        shown=3,
    )
)
