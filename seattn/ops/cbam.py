"""CBAM's two gates: of every channel from its mean and its maximum, of every pixel from those of its channels around.

Woo et al., CBAM, ECCV 2018, https://arxiv.org/abs/1807.06521, eq. 2 and 3, with the official code's batch norm.
Shapes: B images, C channels, H x W pixels, R hidden channels, k x k window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from seattn.ops._cbam.channel import cbam_channel
from seattn.ops._cbam.spatial import cbam_spatial
from seattn.ops._checks import check_device, check_map, check_vector
from seattn.ops._kernel import choose, too_large
from seattn.ops._tail.excitation import Excitation, act_fn, check_excitation, check_names, gate_fn
from seattn.ops._tail.in_torch import compute_dtype
from seattn.ops._tail.norm import BatchNorm, batch_norm_reference, check_batch_norm, update_running
from seattn.ops._tail.run import fx_leaf


@fx_leaf
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
) -> Tensor:
    """y = x * gate(batch_norm(conv([max_c(x), mean_c(x)]))), by the implementation that `set_kernels` says.

    Computed in fp32 (float64 for a float64 x), under autocast too. The gradient of a maximum goes in equal parts to the
    channels that share it, as that of torch.amax; a NaN is the maximum.

    Args:
        x: (B, C, H, W), floating point; NCHW and channels_last without a copy. At least one pixel; B may be 0.
        weight: (1, 2, k, k), k odd; zeros beyond the border.
        running_mean, running_var, bn_weight, bn_bias: (1) or None, of the norm between convolution and gate; where
            training is True the running ones are updated in place. No norm: all None and training False.
        training, momentum, eps: as in `torch.nn.functional.batch_norm`.
        gate: sigmoid, two_sigmoid or hard_sigmoid.
        max_first: whether weight[:, 0] is for the maximum, as in the paper, or for the mean, as in timm.

    Returns:
        (B, C, H, W) with the dtype and memory format of x.

    Raises:
        ValueError: for shapes that do not fit, mixed devices, a dtype that is not floating point, an unknown name, a
            momentum outside 0..1, or a single pixel where training is True.
        RuntimeError: if the kernels are set to "triton" or "torch" and that one cannot run.
    """
    check_map(x)
    side = weight.shape[-1] if weight.dim() == 4 else 0
    if side % 2 == 0 or weight.shape != (1, 2, side, side):
        raise ValueError(f"weight must be (1, 2, k, k) with k odd; got {tuple(weight.shape)}")
    check_device("weight", weight, x)
    check_names("identity", gate)
    norm = _norm(running_mean, running_var, bn_weight, bn_bias, training, momentum, eps)
    if norm is not None:
        check_vector("bn_weight", bn_weight, 1, x)
        check_vector("bn_bias", bn_bias, 1, x)
        check_batch_norm(norm, x[:, :1])
    implementation = choose(x, too_large)
    if implementation == "reference":
        return _reference(x, weight, norm, gate, max_first)
    dtype = compute_dtype(x)
    kind = "none" if norm is None else "batch" if training else "frozen"
    given = (None, None) if training else (running_mean, running_var)
    tensors = [_to(t, dtype) for t in (bn_weight, bn_bias, *given)]
    y, mean, var = cbam_spatial(implementation, x, weight.to(dtype), *tensors, kind, eps, gate, max_first)
    if norm is not None and training:
        update_running(norm, mean, var, x.shape[0] * x.shape[2] * x.shape[3])
    return y


def cbam_spatial_gate_reference(
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
) -> Tensor:
    """The definition, in fp32 with one rounding. Arguments as in `cbam_spatial_gate`.

    On CUDA the convolution follows `torch.backends.cudnn.allow_tf32`, as any of torch's.
    """
    norm = _norm(running_mean, running_var, bn_weight, bn_bias, training, momentum, eps)
    return _reference(x, weight, norm, gate, max_first)


def _reference(x: Tensor, weight: Tensor, norm: BatchNorm | None, gate: str, max_first: bool) -> Tensor:
    dtype = compute_dtype(x)
    wide = x.to(dtype)
    peak, mean = wide.amax(1), wide.mean(1)  # (B, H, W)
    pooled = torch.stack([peak, mean] if max_first else [mean, peak], 1)  # (B, 2, H, W)
    padding = weight.shape[2] // 2
    if x.is_meta:  # the one device without autocast
        z = F.conv2d(pooled, weight.to(dtype), padding=padding)
    else:
        with torch.autocast(x.device.type, enabled=False):
            z = F.conv2d(pooled, weight.to(dtype), padding=padding)  # (B, 1, H, W)
    logits = z if norm is None else batch_norm_reference(z, norm, dtype)
    return (wide * gate_fn(logits, gate)).to(x.dtype)


def _norm(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> BatchNorm | None:
    if not training and all(t is None for t in (running_mean, running_var, weight, bias)):
        return None
    return BatchNorm(running_mean, running_var, weight, bias, training, momentum, eps)


def _to(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if t is None else t.to(dtype)


@fx_leaf
def cbam_channel_gate(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    act: str = "relu",
    gate: str = "sigmoid",
) -> Tensor:
    """y = x * gate(mlp(mean_hw(x)) + mlp(max_hw(x))), mlp(v) = W2 act(W1 v + b1) + b2; by what `set_kernels` says.

    Computed in fp32 (float64 for a float64 x), under autocast too. The gradient of a maximum goes in equal parts to the
    pixels that share it, as that of torch.amax; a NaN is the maximum.

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
        RuntimeError: if the kernels are set to "triton" or "torch" and that one cannot run.
    """
    check_map(x)
    check_excitation(Excitation("se", w1, b1, w2, b2, act, gate), x)
    implementation = choose(x, too_large)
    if implementation == "reference":
        return cbam_channel_gate_reference(x, w1, b1, w2, b2, act=act, gate=gate)
    dtype = compute_dtype(x)
    weights = [None if w is None else w.to(dtype) for w in (w1, b1, w2, b2)]
    return cbam_channel(implementation, x, *weights, act, gate)[0]


def cbam_channel_gate_reference(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    act: str = "relu",
    gate: str = "sigmoid",
) -> Tensor:
    """The definition, in fp32 with one rounding. Arguments as in `cbam_channel_gate`."""
    dtype = compute_dtype(x)
    wide = x.to(dtype)
    pooled = torch.stack([wide.mean((2, 3)), wide.amax((2, 3))])  # (2, B, C)
    weights = (w1.to(dtype), _to(b1, dtype), w2.to(dtype), _to(b2, dtype))
    if x.is_meta:  # the one device without autocast
        logits = _mlp(pooled, *weights, act).sum(0)
    else:
        with torch.autocast(x.device.type, enabled=False):
            logits = _mlp(pooled, *weights, act).sum(0)  # (B, C)
    return (wide * gate_fn(logits, gate)[:, :, None, None]).to(x.dtype)


def _mlp(v: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str) -> Tensor:
    return F.linear(act_fn(F.linear(v, w1, b1), act), w2, b2)
