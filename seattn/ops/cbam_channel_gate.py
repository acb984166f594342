"""CBAM's channel gate: a gate for every channel from its mean and its maximum.

Woo et al., CBAM, ECCV 2018, https://arxiv.org/abs/1807.06521, eq. 2. Shapes: B images, C channels, H x W pixels,
R hidden channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from seattn.ops._cbam.channel import cbam_channel
from seattn.ops._checks import check_excitation, check_map
from seattn.ops._kernel import choose, too_large
from seattn.ops._tail.excitation import Excitation, act_fn, gate_fn
from seattn.ops._tail.in_torch import compute_dtype
from seattn.ops._tail.run import fx_leaf


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


def _to(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if t is None else t.to(dtype)
