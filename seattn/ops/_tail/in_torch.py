"""The steps of the channel-attention tail written by hand in torch, for CPUs and for GPUs without Triton.

Each direction makes as few tensors of the size of x as it can: on a CPU the first write to new memory takes longer
than the arithmetic. The formulas and names are in `seattn/ops/_tail/operator.py`. x has any float dtype; statistics and
gates are fp32 (float64 for a float64 x). A small 16-bit x is widened. A large one is scaled by gates that are rounded
to its dtype, and the products under its sums are rounded too.
Shapes: N images, C channels, H x W pixels, R hidden channels.
"""

from functools import partial

import torch
from torch import Tensor

from seattn.ops._maps import column, compute_dtype, mean_pixels, scale_add, scale_channels
from seattn.ops._operator import dense_like
from seattn.ops._tail.excitation import Excitation
from seattn_kernels.arguments import Norm, Saved

# Elements up to which a 16-bit map is worked on in fp32: its copies then stay in cache.
WIDEN_BELOW = 1 << 18

FwdOut = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
BwdOut = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _working_dtype(x: Tensor, norm: str) -> torch.dtype:
    return compute_dtype(x) if norm != "none" or x.numel() < WIDEN_BELOW else x.dtype


def attn_tail_fwd(x: Tensor, shortcut: Tensor | None, excitation: Excitation, norm: Norm, out_act: str) -> FwdOut:
    """(y, squeeze, mean, var, hidden, scale) as `torch.ops.seattn.attn_tail_fwd`."""
    dtype, gated = compute_dtype(x), excitation.kind != "none"
    x = dense_like(x, x)
    shortcut = None if shortcut is None else dense_like(shortcut, x)
    empty = partial(x.new_empty, 0, dtype=dtype)  # no two results of an operator may be the same tensor
    wide = x.to(_working_dtype(x, norm.kind))
    squeeze = mean_pixels(wide, dtype) if gated else empty()  # (N, C)
    scale, hidden, mean, var = empty(), empty(), empty(), empty()
    if norm.kind == "none":
        if gated:
            scale, hidden = _gates(excitation, squeeze, hidden)
        y = _scaled(wide, shortcut, scale)
    else:
        if norm.kind == "batch":
            mean, var = _statistics(wide)
            norm = Norm(norm.kind, norm.weight, norm.bias, mean, var, norm.eps)
        assert norm.mean is not None
        assert norm.var is not None
        factor = _factor((norm.var + norm.eps).rsqrt(), norm)  # (C)
        offset = -factor * norm.mean if norm.bias is None else norm.bias - factor * norm.mean
        a, b = factor.expand(1, -1), offset.expand(1, -1)  # (1, C)
        if gated:
            scale, hidden = _gates(excitation, _normed_mean(squeeze, norm.mean, factor, norm), hidden)
            a, b = factor * scale, offset * scale  # (N, C)
        y = scale_add(b, wide, a)
        y = y if shortcut is None else y.add_(shortcut)
    y = y.to(x.dtype)
    return y.relu_() if out_act == "relu" else y, squeeze, mean, var, hidden, scale


def attn_tail_inference(
    x: Tensor, shortcut: Tensor | None, excitation: Excitation, out_act: str, *, overwrite: bool = False
) -> Tensor:
    """The first result of `attn_tail_fwd` where there is no norm, to the bit, and nothing for a backward.

    It makes few small steps, because on a small map of a CPU those of `attn_tail_fwd` take longer than the arithmetic.
    With `overwrite` the result may take the memory of x.
    """
    x = dense_like(x, x)
    shortcut = None if shortcut is None else dense_like(shortcut, x)
    if x.element_size() >= 4 and x.is_cpu:  # nothing to widen, and no product that is slow
        scale = column(excitation.gates(x.mean((2, 3)))[0], x)
        out = x if overwrite else None
        y = torch.mul(x, scale, out=out) if shortcut is None else torch.addcmul(shortcut, x, scale, out=out)
    else:
        wide = x.to(_working_dtype(x, "none"))
        scale, _ = excitation.gates(mean_pixels(wide, compute_dtype(x)))  # (N, C)
        y = _scaled(wide, shortcut, scale, out=wide if overwrite else None).to(x.dtype)
    return y.relu_() if out_act == "relu" else y


def attn_tail_bwd(
    dy: Tensor, x: Tensor, y: Tensor | None, excitation: Excitation, norm: Norm, saved: Saved, out_act: str
) -> BwdOut:
    """(dx, g, dweight, dbias, dw1, db1, dw2, db2) as `torch.ops.seattn.attn_tail_bwd`."""
    dtype = compute_dtype(x)
    empty = partial(x.new_empty, 0, dtype=dtype)
    x, dy = dense_like(x, x), dense_like(dy, x)
    g = dy if y is None else torch.ops.aten.threshold_backward(dy, dense_like(y, x), 0)
    shortcut_grad = x.new_empty(0) if y is None else g
    work = _working_dtype(x, norm.kind)
    wide_g, wide_x = g.to(work), x.to(work)
    dx = wide_g * wide_x  # the buffer of the result; first it holds the product
    s2 = dx.sum((2, 3)).to(dtype)  # (N, C); with another dtype here, torch would first copy the map
    pixels = x.shape[2] * x.shape[3]
    if norm.kind == "none":
        dp, dw1, db1, dw2, db2 = excitation.grads(s2, saved.squeeze, saved.hidden, saved.scale)
        scale_add(dp / pixels, wide_g, saved.scale, out=dx)
        return dx.to(x.dtype), shortcut_grad, empty(), empty(), dw1, db1, dw2, db2
    assert norm.mean is not None
    assert norm.var is not None
    rstd = (norm.var + norm.eps).rsqrt()  # (C)
    factor = _factor(rstd, norm)
    s1 = wide_g.sum((2, 3))  # (N, C)
    s2 = s2 - norm.mean * s1
    if excitation.kind == "none":
        scale, dp = torch.ones_like(s2), torch.zeros_like(s2)
        dw1, db1, dw2, db2 = empty(), empty(), empty(), empty()
        dweight = rstd * s2.sum(0)
    else:
        scale = saved.scale
        dscale = factor * s2 if norm.bias is None else factor * s2 + norm.bias * s1
        p = _normed_mean(saved.squeeze, norm.mean, factor, norm)
        dp, dw1, db1, dw2, db2 = excitation.grads(dscale, p, saved.hidden, scale)
        dweight = rstd * (scale * s2 + dp * (saved.squeeze - norm.mean)).sum(0)
    dbias = (scale * s1 + dp).sum(0)
    shift = factor * dp / pixels  # (N, C)
    if norm.kind == "batch":
        values = x.shape[0] * pixels
        slope = -factor * rstd * dweight / values  # (C)
        shift = shift - factor * dbias / values - slope * norm.mean
        scale_add(shift, wide_g, factor * scale, out=dx)
        dx.addcmul_(wide_x, column(slope.expand(1, -1), dx))
    else:
        scale_add(shift, wide_g, factor * scale, out=dx)
    return dx.to(x.dtype), shortcut_grad, dweight, dbias, dw1, db1, dw2, db2


def _gates(excitation: Excitation, p: Tensor, no_hidden: Tensor) -> tuple[Tensor, Tensor]:
    scale, hidden = excitation.gates(p)
    return scale, no_hidden if hidden is None else hidden


def _scaled(x: Tensor, shortcut: Tensor | None, scale: Tensor, *, out: Tensor | None = None) -> Tensor:
    """x * scale + shortcut, in the dtype of x."""
    if shortcut is None:
        return scale_channels(x, scale, out=out)
    return scale_add(shortcut.to(x.dtype), x, scale, out=out)


def _statistics(wide: Tensor) -> tuple[Tensor, Tensor]:
    if wide.shape[0] == 0:
        return wide.new_zeros(wide.shape[1]), wide.new_zeros(wide.shape[1])
    mean, var = torch.batch_norm_update_stats(wide, None, None, 0.0)
    return mean, var


def _factor(rstd: Tensor, norm: Norm) -> Tensor:
    """weight * rstd, (C)."""
    return rstd if norm.weight is None else rstd * norm.weight


def _normed_mean(squeeze: Tensor, mean: Tensor, factor: Tensor, norm: Norm) -> Tensor:
    """The mean of the normalised map, (N, C). The mean is subtracted first, so a large mean costs no digits."""
    centred = squeeze - mean
    return centred * factor if norm.bias is None else torch.addcmul(norm.bias, centred, factor)
