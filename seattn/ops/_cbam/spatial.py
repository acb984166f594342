"""torch.ops.seattn.cbam_spatial_fwd and _bwd: pooling over channels, the gate, the product.

    pooled = [max_c x, mean_c x] or [mean_c x, max_c x];  z = conv(pooled)
    scale  = gate(norm(z));  y = x scale            norm: "none", "frozen" (mean and var given), "batch" (those of z)
Backward:
    dlogits = gate'(scale) sum_c dy x;  dz from it through the norm, dpooled through the convolution
    dx = dy scale + (gradient of the mean) / C + (gradient of the maximum) / ties where x is the maximum
Four functions pass over x: `_cbam/in_torch.py` and `seattn_kernels/cbam_spatial.py` each define them. The steps between
them are torch's, on one or two numbers for each pixel: the convolution, and the batch norm of a map with one channel.
Shapes: N images, C channels, H x W pixels, k x k window; x, y (N, C, H, W), pooled (N, 2, H, W), z, scale (N, H, W),
weight (1, 2, k, k), the norm's (1); all but x, y and their gradients are fp32 (float64 for a float64 x).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seattn.ops._cbam import in_torch
from seattn.ops._cbam.plane_conv import plane_conv, plane_conv_grads
from seattn.ops._maps import compute_dtype
from seattn.ops._operator import Operator, Outputs, define, dense_like
from seattn_kernels.arguments import Norm

Passes = Any  # a module with pool_channels, pixel_gate, reduce_channels and pixel_gate_grad


def _triton() -> Passes:
    from seattn_kernels import cbam_spatial as kernels  # needs triton, which `import seattn` must not

    return kernels


def _forward(passes: Callable[[], Passes]) -> Callable[..., Outputs]:
    """The forward by these passes, with the arguments and the schema of `torch.ops.seattn.cbam_spatial_fwd`."""

    def fwd(
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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        x = dense_like(x, x)
        pooled = passes().pool_channels(x, max_first)
        z = plane_conv(pooled, weight)
        batch_mean, batch_var = _statistics(z, norm)
        if norm == "batch":
            mean, var = batch_mean, batch_var
        y, scale = passes().pixel_gate(x, z, Norm(norm, bn_weight, bn_bias, mean, var, eps), gate)
        return y, batch_mean, batch_var, pooled, z, scale

    return fwd


def _backward(passes: Callable[[], Passes]) -> Callable[..., Outputs]:
    """The backward by these passes, with the arguments and the schema of `torch.ops.seattn.cbam_spatial_bwd`."""

    def bwd(
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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = dense_like(x, x)
        dy = dense_like(dy, x)
        dlogits, shared = passes().reduce_channels(dy, x, scale, pooled, gate, max_first)
        dz, dgamma, dbeta = _norm_grads(dlogits, z, Norm(norm, bn_weight, None, mean, var, eps))
        dpooled, dweight = plane_conv_grads(dz, pooled, weight)
        dx = passes().pixel_gate_grad(dy, x, scale, pooled, dpooled, shared, max_first)
        return dx, dweight, dgamma, dbeta

    return bwd


def _statistics(z: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the batch, (1) each; empty (0) where the norm does not use them."""
    if norm != "batch":
        return z.new_empty(0), z.new_empty(0)
    var, mean = torch.var_mean(z, correction=0)
    return mean.view(1), var.view(1)


def _norm_grads(dlogits: Tensor, z: Tensor, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """(dz, gradient of the norm's weight, of its bias); the last two are empty (0) where there is no norm."""
    if norm.mean is None or norm.var is None:
        return dlogits, z.new_empty(0), z.new_empty(0)
    rstd = (norm.var + norm.eps).rsqrt()
    normed = (z - norm.mean).mul_(rstd)
    dbeta, dgamma = dlogits.sum().view(1), (dlogits * normed).sum().view(1)
    dz = dlogits - (dbeta + normed * dgamma) / z.numel() if norm.kind == "batch" else dlogits
    return dz * (rstd if norm.weight is None else rstd * norm.weight), dgamma, dbeta


def _fwd_fake(x: Tensor, weight: Tensor, *others: Any) -> Outputs:
    norm = others[4]
    images, _, height, width = x.shape
    pooled = x.new_empty((images, 2, height, width), dtype=compute_dtype(x))
    z = pooled.new_empty((images, height, width))
    statistics = z.new_empty(1 if norm == "batch" else 0)
    y = torch.empty_like(dense_like(x, x))
    return y, statistics, torch.empty_like(statistics), pooled, z, torch.empty_like(z)


def _bwd_fake(dy: Tensor, x: Tensor, weight: Tensor, *others: Any) -> Outputs:
    norm = others[6]
    dgamma = weight.new_empty(0 if norm == "none" else 1)
    return torch.empty_like(dense_like(x, x)), weight.new_empty(weight.shape), dgamma, torch.empty_like(dgamma)


def _save(inputs: tuple[Any, ...], outputs: Outputs) -> tuple[tuple[Tensor | None, ...], tuple[Any, ...]]:
    x, weight, bn_weight, _, mean, var, *constants = inputs
    _, batch_mean, batch_var, pooled, z, scale = outputs
    if constants[0] == "batch":
        mean, var = batch_mean, batch_var
    return (x, weight, bn_weight, mean, var, pooled, z, scale), tuple(constants)


OPERATOR = Operator(
    name="cbam_spatial",
    fwd={"torch": _forward(lambda: in_torch), "triton": _forward(_triton)},
    bwd={"torch": _backward(lambda: in_torch), "triton": _backward(_triton)},
    fwd_fake=_fwd_fake,
    bwd_fake=_bwd_fake,
    save=_save,
    shown=3,
)
cbam_spatial = define(OPERATOR)
