"""CBAM: a gate for every channel from its mean and maximum over the pixels, and for every pixel over the channels.

Woo et al., CBAM, ECCV 2018, https://arxiv.org/abs/1807.06521, eq. 2 and 3, with the official code's batch norm.
Shapes: B images, C channels, H x W pixels, R hidden channels, k x k window.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seattn.ops._cbam.channel import cbam_channel
from seattn.ops._cbam.spatial import cbam_spatial
from seattn.ops._checks import check_device, check_map
from seattn.ops._kernel import choose, too_large
from seattn.ops._maps import compute_dtype
from seattn.ops._operator import definition, graph_without_autocast, public_op
from seattn.ops._tail.activations import act_fn, check_names, gate_fn
from seattn.ops._tail.excitation import SE
from seattn.ops._tail.norm import BatchNorm, batch_norm_reference
from seattn_kernels.arguments import NO_NORM


class _SpatialGate(NamedTuple):
    """The arguments of `_run_spatial` and of `_spatial_reference`."""

    x: Tensor
    weight: Tensor
    norm: BatchNorm | None
    gate: str
    max_first: bool


def _run_spatial(x: Tensor, weight: Tensor, norm: BatchNorm | None, gate: str, max_first: bool) -> Tensor:
    check_map(x)
    side = weight.shape[-1] if weight.dim() == 4 else 0
    if side % 2 == 0 or weight.shape != (1, 2, side, side):
        raise ValueError(f"weight must be (1, 2, k, k) with k odd; got {tuple(weight.shape)}")
    check_device("weight", weight, x)
    check_names("identity", gate)
    if norm is not None:
        norm.check(x[:, :1], prefix="bn_")
    implementation = choose(x, too_large)
    if implementation == "reference":
        return _spatial_reference(x, weight, norm, gate, max_first)
    dtype = compute_dtype(x)
    n = NO_NORM if norm is None else norm.for_operator(dtype)
    then = None if norm is None else norm.running_update(x)
    return cbam_spatial(
        implementation,
        x,
        weight.to(dtype),
        n.weight,
        n.bias,
        n.mean,
        n.var,
        n.kind,
        n.eps,
        gate,
        max_first,
        then=then,
    )[0]


def _spatial_reference(x: Tensor, weight: Tensor, norm: BatchNorm | None, gate: str, max_first: bool) -> Tensor:
    """On CUDA the convolution follows `torch.backends.cudnn.allow_tf32`, as every convolution of torch does."""
    dtype = compute_dtype(x)
    wide = x.to(dtype)
    peak, mean = wide.amax(1, keepdim=True), wide.mean(1, keepdim=True)  # (B, 1, H, W)
    # Not torch.stack: inductor (torch 2.14) cannot order the strides of its reshape where H and W are symbols.
    pooled = torch.cat([peak, mean] if max_first else [mean, peak], 1)  # (B, 2, H, W)
    with graph_without_autocast(x):
        z = F.conv2d(pooled, weight.to(dtype), padding=weight.shape[2] // 2)  # (B, 1, H, W)
    logits = z if norm is None else batch_norm_reference(z, norm, dtype)
    return (wide * gate_fn(logits, gate)).to(x.dtype)


@public_op(_run_spatial)
def cbam_spatial_gate(
    x: Tensor,
    weight: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    bn_weight: Tensor | None,
    bn_bias: Tensor | None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    gate: str = "sigmoid",
    max_first: bool = True,
) -> _SpatialGate:
    """y = x * gate(batch_norm(conv([max_c(x), mean_c(x)]))), by the implementation that `set_kernels` chose.

    Computed in fp32 (float64 for a float64 x), under autocast too. Channels that share the maximum get equal parts of
    its gradient, as in torch.amax; if a channel is NaN, the maximum is NaN.

    Args:
        x: (B, C, H, W), floating point; NCHW and channels_last without a copy. At least one pixel; B may be 0.
        weight: (1, 2, k, k), k odd; the convolution pads with zeros.
        running_mean, running_var, bn_weight, bn_bias: (1) or None, of the batch norm between convolution and gate; if
            training is True, the running statistics are updated in place. Without a norm, all four are None and
            training is False.
        training, momentum, eps: as in `torch.nn.functional.batch_norm`.
        gate: sigmoid, two_sigmoid or hard_sigmoid.
        max_first: whether weight[:, 0] is for the maximum, as in the paper, or for the mean, as in timm.

    Returns:
        (B, C, H, W) with the dtype and memory format of x.

    Raises:
        ValueError: for shapes that do not fit, mixed devices, a dtype that is not floating point, an unknown name, a
            momentum outside 0..1, or a single pixel where training is True.
        RuntimeError: if the kernels are set to "triton" or "torch" and that implementation cannot run.
    """
    norm = None
    if training or any(t is not None for t in (running_mean, running_var, bn_weight, bn_bias)):
        norm = BatchNorm(running_mean, running_var, bn_weight, bn_bias, training, momentum, eps)
    return _SpatialGate(x, weight, norm, gate, max_first)


cbam_spatial_gate_reference = definition(cbam_spatial_gate, _spatial_reference)


def _run_channel(x: Tensor, mlp: SE) -> Tensor:
    check_map(x)
    mlp.check(x)
    implementation = choose(x, too_large)
    if implementation == "reference":
        return _channel_reference(x, mlp)
    mlp = mlp.in_dtype(compute_dtype(x))
    return cbam_channel(implementation, x, mlp.w1, mlp.b1, mlp.w2, mlp.b2, mlp.act, mlp.gate)[0]


def _channel_reference(x: Tensor, mlp: SE) -> Tensor:
    dtype = compute_dtype(x)
    wide, e = x.to(dtype), mlp.in_dtype(dtype)
    pooled = torch.stack([wide.mean((2, 3)), wide.amax((2, 3))])  # (2, B, C)
    with graph_without_autocast(x):
        hidden = act_fn(F.linear(pooled, e.w1, e.b1), e.act)  # (2, B, R)
        logits = F.linear(hidden, e.w2, e.b2).sum(0)  # (B, C)
    return (wide * gate_fn(logits, e.gate)[:, :, None, None]).to(x.dtype)


@public_op(_run_channel)
def cbam_channel_gate(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    act: str = "relu",
    gate: str = "sigmoid",
) -> tuple[Tensor, SE]:
    """y = x * gate(mlp(mean_hw(x)) + mlp(max_hw(x))), mlp(v) = W2 act(W1 v + b1) + b2.

    Computed in fp32 (float64 for a float64 x), under autocast too. Pixels that share the maximum get equal parts of its
    gradient, as in torch.amax; if a pixel is NaN, the maximum is NaN.

    Args:
        x: (B, C, H, W), floating point; NCHW and channels_last without a copy. At least one pixel; B may be 0.
        w1, b1: (R, C) and (R) or None.
        w2, b2: (C, R) and (C) or None.
        act: relu, silu, gelu (exact), hard_swish or identity.
        gate: sigmoid, two_sigmoid or hard_sigmoid.

    Returns:
        (B, C, H, W) with the dtype and memory format of x.

    Raises:
        ValueError: for shapes that do not fit, mixed devices, a dtype that is not floating point, or an unknown name.
        RuntimeError: if the kernels are set to "triton" or "torch" and that implementation cannot run.
    """
    return x, SE(w1=w1, b1=b1, w2=w2, b2=b2, act=act, gate=gate)


cbam_channel_gate_reference = definition(cbam_channel_gate, _channel_reference)
