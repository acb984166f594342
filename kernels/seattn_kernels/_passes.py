"""The four kernels that each pass once over a map; everything else works on (N, C).

Shapes: N images, C channels, P = H*W pixels; T = one map's bytes.
    x, shortcut, y, dy, g, dx (N, C, H, W): fp32, fp16 or bf16, dense, all in one layout, NCHW or channels_last
    squeeze, m2, s1, s2, scale, dz, dp (N, C); weight, bias, mean, var, dweight, dbias (C): fp32, contiguous
Offsets within an image are int32 (C*P below 2^31), those of images int64. Sums are fp32, in a fixed order, no atomics.
A pointer that is None stands for an absent argument: no norm where mean_ptr is None, and so on.
"""

# ruff: noqa: N803  upper case marks sizes and compile-time constants, as Triton's own kernels do
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

import triton
import triton.language as tl

from seattn_kernels._layout import offsets_in_image
from seattn_kernels._math import act, gate_grad, norm_scale, welford_step, welford_total


@triton.jit
def moments_kernel(
    x_ptr, squeeze_ptr, m2_ptr, C, P, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr
):
    """squeeze[n, c] = mean_p x and, unless m2_ptr is None, m2[n, c] = sum_p (x - squeeze)^2.

    Grid (N, C / BLOCK_C). 1 T: reads x. Each lane keeps Welford's mean and deviation; Chan's formula merges the lanes.
    """
    n = tl.program_id(0).to(tl.int64)
    x_ptr += n * C * P
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = tl.arange(0, BLOCK_P)
    acc = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)  # a sum, or a mean
    dev = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    for start in range(0, P, BLOCK_P):
        p = start + first
        mask = (c[:, None] < C) & (p[None, :] < P)
        x = tl.load(x_ptr + offsets_in_image(c, p, C, P, CHANNELS_LAST), mask=mask, other=0.0).to(tl.float32)
        if m2_ptr is None:
            acc += x
        else:
            acc, dev = welford_step(acc, dev, x, start // BLOCK_P + 1, p[None, :] < P)
    if m2_ptr is None:
        mean = tl.sum(acc, axis=1) / P
    else:
        count = tl.cdiv(tl.maximum(P - first, 0), BLOCK_P).to(tl.float32)  # values that each lane has seen
        mean, m2 = welford_total(acc, dev, count[None, :], P, 1)
        tl.store(m2_ptr + n * C + c, m2, mask=c < C)
    tl.store(squeeze_ptr + n * C + c, mean, mask=c < C)


@triton.jit
def apply_kernel(
    x_ptr,
    shortcut_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    scale_ptr,
    y_ptr,
    C,
    P,
    eps,
    OUT_ACT: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """y = OUT_ACT(scale[n, c] * norm(x) + shortcut). Grid (N * P / BLOCK_P, C / BLOCK_C).

    3 T: reads x and shortcut, writes y; 2 T without shortcut. Images and tiles of pixels share the first axis of the
    grid, because the other axes end at 65,535 programs, fewer than a large image needs.
    """
    tiles = tl.cdiv(P, BLOCK_P)
    n = (tl.program_id(0) // tiles).to(tl.int64)
    p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (c[:, None] < C) & (p[None, :] < P)
    offsets = offsets_in_image(c, p, C, P, CHANNELS_LAST)
    y = tl.load(x_ptr + n * C * P + offsets, mask=mask, other=0.0).to(tl.float32)
    if shortcut_ptr is not None:
        shortcut = tl.load(shortcut_ptr + n * C * P + offsets, mask=mask, other=0.0).to(tl.float32)
    if scale_ptr is not None:
        scale = tl.load(scale_ptr + n * C + c, mask=c < C, other=0.0)
    if mean_ptr is not None:
        factor = norm_scale(weight_ptr, var_ptr, c, C, eps)
        if scale_ptr is not None:
            factor *= scale
        y = (y - tl.load(mean_ptr + c, mask=c < C, other=0.0)[:, None]) * factor[:, None]
        if bias_ptr is not None:
            shift = tl.load(bias_ptr + c, mask=c < C, other=0.0)
            if scale_ptr is not None:
                shift *= scale
            y += shift[:, None]
    elif scale_ptr is not None:
        y *= scale[:, None]
    if shortcut_ptr is not None:
        y += shortcut
    tl.store(y_ptr + n * C * P + offsets, act(y, OUT_ACT).to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def reduce_kernel(
    dy_ptr,
    y_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    scale_ptr,
    g_ptr,
    s1_ptr,
    s2_ptr,
    dz_ptr,
    C,
    P,
    eps,
    GATE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """g = dy where y > 0 (dy where y_ptr is None), s1 = sum_p g, s2 = sum_p g (x - mean), dz = gate'(scale) * ds.

    ds = scale of the norm * s2 + bias * s1, or s2 without norm. s1 and s2 are written where there is a norm, dz where
    there is a gate. Grid (N, C / BLOCK_C). 4 T: reads dy, y and x, writes g; 2 T without y.
    """
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    centre = tl.zeros((BLOCK_C,), tl.float32)
    if mean_ptr is not None:
        centre = tl.load(mean_ptr + c, mask=c < C, other=0.0)
    sum1 = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    sum2 = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        mask = (c[:, None] < C) & (p[None, :] < P)
        offsets = offsets_in_image(c, p, C, P, CHANNELS_LAST)
        g = tl.load(dy_ptr + n * C * P + offsets, mask=mask, other=0.0)
        x = tl.load(x_ptr + n * C * P + offsets, mask=mask, other=0.0).to(tl.float32)
        if y_ptr is not None:
            y = tl.load(y_ptr + n * C * P + offsets, mask=mask, other=0.0).to(tl.float32)
            g = tl.where(y <= 0, 0.0, g)  # not y > 0: a NaN passes the gradient, as in torch
            tl.store(g_ptr + n * C * P + offsets, g, mask=mask)
        g = g.to(tl.float32)
        if mean_ptr is not None:
            sum1 += g
            x -= centre[:, None]
        sum2 += g * x
    s2 = tl.sum(sum2, axis=1)
    if mean_ptr is not None:
        s1 = tl.sum(sum1, axis=1)
        tl.store(s1_ptr + n * C + c, s1, mask=c < C)
        tl.store(s2_ptr + n * C + c, s2, mask=c < C)
        s2 *= norm_scale(weight_ptr, var_ptr, c, C, eps)
        if bias_ptr is not None:
            s2 += s1 * tl.load(bias_ptr + c, mask=c < C, other=0.0)
    if scale_ptr is not None:
        scale = tl.load(scale_ptr + n * C + c, mask=c < C, other=0.0)
        tl.store(dz_ptr + n * C + c, gate_grad(s2, scale, GATE), mask=c < C)


@triton.jit
def apply_grad_kernel(
    g_ptr,
    x_ptr,
    weight_ptr,
    mean_ptr,
    var_ptr,
    scale_ptr,
    dp_ptr,
    dweight_ptr,
    dbias_ptr,
    dx_ptr,
    C,
    P,
    eps,
    inv_count,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """dx = A[n, c] g + D[n, c], plus B[c] (x - mean[c]) for the batch's own statistics.

    a0 = scale of the norm (1 where var_ptr is None); A = a0 * scale;  D = a0 * dp / P
    unless x_ptr is None:  B = -a0 * rstd * dweight * inv_count,  D -= a0 * dbias * inv_count;  inv_count = 1 / (N P)
    Grid (N * P / BLOCK_P, C / BLOCK_C). 3 T: reads g and x, writes dx; 2 T where x_ptr is None.
    """
    tiles = tl.cdiv(P, BLOCK_P)
    n = (tl.program_id(0) // tiles).to(tl.int64)
    p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (c[:, None] < C) & (p[None, :] < P)
    offsets = offsets_in_image(c, p, C, P, CHANNELS_LAST)
    dx = tl.load(g_ptr + n * C * P + offsets, mask=mask, other=0.0).to(tl.float32)
    if x_ptr is not None:
        x = tl.load(x_ptr + n * C * P + offsets, mask=mask, other=0.0).to(tl.float32)
    a0 = tl.full((BLOCK_C,), 1.0, tl.float32)
    if var_ptr is not None:
        a0 = norm_scale(weight_ptr, var_ptr, c, C, eps)
    factor = a0
    shift = tl.zeros((BLOCK_C,), tl.float32)
    if scale_ptr is not None:
        factor *= tl.load(scale_ptr + n * C + c, mask=c < C, other=0.0)
        shift = tl.load(dp_ptr + n * C + c, mask=c < C, other=0.0) / P
    dx *= factor[:, None]
    if x_ptr is not None:
        rstd = tl.rsqrt(tl.load(var_ptr + c, mask=c < C, other=1.0) + eps)
        slope = a0 * rstd * inv_count * tl.load(dweight_ptr + c, mask=c < C, other=0.0)
        shift -= inv_count * tl.load(dbias_ptr + c, mask=c < C, other=0.0)
        dx -= slope[:, None] * (x - tl.load(mean_ptr + c, mask=c < C, other=0.0)[:, None])
    dx += (a0 * shift)[:, None]
    tl.store(dx_ptr + n * C * P + offsets, dx.to(dx_ptr.dtype.element_ty), mask=mask)
