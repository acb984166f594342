"""The steps of the channel-attention tail written by hand in torch: the CPU's way, and that of GPUs without Triton.

Each direction makes as few tensors of the size of x as it can: on a CPU the first touch of fresh memory costs more than
the arithmetic. Formulas and names are in `seattn/ops/_tail/operator.py`. Any float dtype; statistics and gates in fp32
(float64 for float64). A 16-bit x is widened while that is cheap; a larger one is scaled by gates rounded to its dtype,
and the products under its sums are rounded to it too.
Shapes: N images, C channels, H x W pixels, R hidden channels.
"""

import functools

import torch
from torch import Tensor

from seattn.ops._maps import column, mean_pixels, scale_add, scale_channels
from seattn.ops._operator import dense_like
from seattn.ops._tail.excitation import Excitation, excite, excite_grad

# Elements up to which a 16-bit map is worked on in fp32: its copies then stay in cache.
WIDEN_BELOW = 1 << 18

FwdOut = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
BwdOut = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of statistics, gates and sums."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _working_dtype(x: Tensor, norm: str) -> torch.dtype:
    return compute_dtype(x) if norm != "none" or x.numel() < WIDEN_BELOW else x.dtype


def attn_tail_fwd(
    x: Tensor,
    shortcut: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    w1: Tensor | None,
    b1: Tensor | None,
    w2: Tensor | None,
    b2: Tensor | None,
    kind: str,
    act: str,
    gate: str,
    norm: str,
    eps: float,
    out_act: str,
) -> FwdOut:
    """(y, squeeze, mean, var, hidden, scale) as `torch.ops.seattn.attn_tail_fwd`."""
    dtype = compute_dtype(x)
    x = dense_like(x, x)
    shortcut = None if shortcut is None else dense_like(shortcut, x)
    none = functools.partial(x.new_empty, 0, dtype=dtype)  # no two results of an operator may be the same tensor
    wide = x.to(_working_dtype(x, norm))
    squeeze = none() if kind == "none" else mean_pixels(wide, dtype)  # (N, C)
    mean, var = (none(), none()) if norm == "none" else _statistics(wide, mean, var, norm)
    factor, offset = _affine(weight, bias, mean, var, eps, norm)  # (C)
    scale, hidden = none(), none()
    if kind != "none":
        # about the mean first: no cancellation where the mean is large beside the deviation
        p = squeeze if factor is None else _about(squeeze, mean, factor, bias)
        scale, maybe_hidden = excite(p, Excitation(kind, w1, b1, w2, b2, act, gate))
        hidden = hidden if maybe_hidden is None else maybe_hidden
    if factor is None:
        y = _scaled(wide, shortcut, scale)
    else:
        assert offset is not None
        per_image = kind != "none"
        a = factor * scale if per_image else factor.expand(1, -1)  # (N, C) or (1, C)
        o = offset * scale if per_image else offset.expand(1, -1)
        y = scale_add(o, wide, a)
        y = y if shortcut is None else y.add_(shortcut)
    y = y.to(x.dtype)
    return y.relu_() if out_act == "relu" else y, squeeze, mean, var, hidden, scale


def attn_tail_inference(
    x: Tensor, shortcut: Tensor | None, e: Excitation, out_act: str, *, overwrite: bool = False
) -> Tensor:
    """What `attn_tail_fwd` gives first where there is no norm, to the bit, and nothing that a backward would want.

    A call of few small steps: on a small map of a CPU those of `attn_tail_fwd` take longer than the arithmetic. With
    `overwrite` the result may take the memory of x.
    """
    x = dense_like(x, x)
    shortcut = None if shortcut is None else dense_like(shortcut, x)
    if x.element_size() >= 4 and x.is_cpu:  # nothing to widen, and no product that is slow
        scale = column(excite(x.mean((2, 3)), e)[0], x)
        out = x if overwrite else None
        y = torch.mul(x, scale, out=out) if shortcut is None else torch.addcmul(shortcut, x, scale, out=out)
    else:
        wide = x.to(_working_dtype(x, "none"))
        scale, _ = excite(mean_pixels(wide, compute_dtype(x)), e)  # (N, C)
        y = _scaled(wide, shortcut, scale, out=wide if overwrite else None).to(x.dtype)
    return y.relu_() if out_act == "relu" else y


def attn_tail_bwd(
    dy: Tensor,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    w1: Tensor | None,
    w2: Tensor | None,
    squeeze: Tensor,
    hidden: Tensor,
    scale: Tensor,
    kind: str,
    act: str,
    gate: str,
    norm: str,
    eps: float,
    out_act: str,
) -> BwdOut:
    """(dx, g, dweight, dbias, dw1, db1, dw2, db2) as `torch.ops.seattn.attn_tail_bwd`."""
    dtype = compute_dtype(x)
    none = functools.partial(x.new_empty, 0, dtype=dtype)
    x, dy = dense_like(x, x), dense_like(dy, x)
    g = torch.ops.aten.threshold_backward(dy, dense_like(y, x), 0) if y is not None else dy
    work = _working_dtype(x, norm)
    wide_g, wide_x = g.to(work), x.to(work)
    dx = wide_g * wide_x  # the buffer of the result; first it holds the product
    s2 = dx.sum((2, 3)).to(dtype)  # (N, C); asked for another dtype, torch would first copy the map
    images, pixels = x.shape[0], x.shape[2] * x.shape[3]
    shortcut_grad = x.new_empty(0) if y is None else g
    factor, _ = _affine(weight, bias, mean, var, eps, norm)
    if factor is None:
        dscale = s2
        dp, dw1, db1, dw2, db2 = excite_grad(
            dscale, squeeze, hidden, scale, Excitation(kind, w1, None, w2, None, act, gate)
        )
        scale_add(dp / pixels, wide_g, scale, out=dx)
        return dx.to(x.dtype), shortcut_grad, none(), none(), dw1, db1, dw2, db2
    s1 = wide_g.sum((2, 3))  # (N, C)
    s2 = s2 - mean * s1
    rstd = (var + eps).rsqrt()
    s, dp = torch.ones_like(s2), torch.zeros_like(s2)
    if kind != "none":
        s = scale
        dscale = factor * s2 if bias is None else factor * s2 + bias * s1
        p = _about(squeeze, mean, factor, bias)
        dp, dw1, db1, dw2, db2 = excite_grad(dscale, p, hidden, scale, Excitation(kind, w1, None, w2, None, act, gate))
        dweight = rstd * (s * s2 + dp * (squeeze - mean)).sum(0)
    else:
        dweight = rstd * s2.sum(0)
        dw1, db1, dw2, db2 = none(), none(), none(), none()
    dbias = (s * s1 + dp).sum(0)
    shift = factor * dp / pixels  # (N, C)
    if norm == "batch":
        count = images * pixels
        slope = -factor * rstd * dweight / count  # (C)
        shift = shift - factor * dbias / count - slope * mean
        scale_add(shift, wide_g, factor * s, out=dx)
        dx.addcmul_(wide_x, column(slope.expand(1, -1), dx))
    else:
        scale_add(shift, wide_g, factor * s, out=dx)
    return dx.to(x.dtype), shortcut_grad, dweight, dbias, dw1, db1, dw2, db2


def _scaled(x: Tensor, shortcut: Tensor | None, scale: Tensor, *, out: Tensor | None = None) -> Tensor:
    """x * scale + shortcut, in the dtype of x."""
    if shortcut is None:
        return scale_channels(x, scale, out=out)
    return scale_add(shortcut.to(x.dtype), x, scale, out=out)


def _statistics(wide: Tensor, mean: Tensor | None, var: Tensor | None, norm: str) -> tuple[Tensor, Tensor]:
    if norm == "frozen":
        assert mean is not None
        assert var is not None
        return mean.clone(), var.clone()  # an operator may not return its input
    if wide.shape[0] == 0:
        return wide.new_zeros(wide.shape[1]), wide.new_zeros(wide.shape[1])
    batch_mean, batch_var = torch.batch_norm_update_stats(wide, None, None, 0.0)
    return batch_mean, batch_var


def _affine(
    weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float, norm: str
) -> tuple[Tensor | None, Tensor | None]:
    """The norm as factor * x + offset, both (C); (None, None) where there is no norm."""
    if norm == "none":
        return None, None
    factor = (var + eps).rsqrt()
    factor = factor if weight is None else factor * weight
    offset = -factor * mean
    return factor, offset if bias is None else offset + bias


def _about(squeeze: Tensor, mean: Tensor, factor: Tensor, bias: Tensor | None) -> Tensor:
    centred = squeeze - mean  # (N, C)
    return centred * factor if bias is None else torch.addcmul(bias, centred, factor)
