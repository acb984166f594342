"""The two kernels of a batch norm that work on (N, C): its statistics, and the gradients of its weight and bias.

Shapes: N images, C channels, P = H*W pixels.
    squeeze, m2, s1, s2, scale, dp, p (N, C); mean, var, weight, bias, dweight, dbias (C): fp32, contiguous
Grid of both (C / BLOCK_C): a program sums all images of its channels, in a fixed order.
"""

# ruff: noqa: N803  upper case marks sizes and compile-time constants, as Triton's own kernels do
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

import triton
import triton.language as tl

from seattn_kernels._layout import Tile
from seattn_kernels._math import norm_mean, welford_step, welford_total

# Images x channels: 8 channels are one sector of 32 bytes, and as few as that spread 64 channels over 8 programs.
# With 4 warps Triton 3.6 keeps 8 bytes a thread on sm_90's stack.
OVER_IMAGES_TILE = Tile(256, 8, 8)


@triton.jit
def statistics_kernel(squeeze_ptr, m2_ptr, mean_ptr, var_ptr, N, C, P, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr):
    """mean[c] and biased var[c] of the batch from each image's mean and squared deviation, by Chan's formula.

    Grid (C / BLOCK_C). Reads two arrays of (N, C), no map. fp32 throughout; never E[x^2] - mean^2, which cancels.
    """
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = tl.arange(0, BLOCK_N)
    centre = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    between = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    within = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(0, N, BLOCK_N):
        n = start + first
        mask = (n[:, None] < N) & (c[None, :] < C)
        offsets = n[:, None].to(tl.int64) * C + c[None, :]
        m = tl.load(squeeze_ptr + offsets, mask=mask, other=0.0)
        within += tl.load(m2_ptr + offsets, mask=mask, other=0.0)
        centre, between = welford_step(centre, between, m, start // BLOCK_N + 1, n[:, None] < N)
    count = tl.cdiv(tl.maximum(N - first, 0), BLOCK_N).to(tl.float32)
    mean, m2 = welford_total(centre, between, count[:, None], N, 0)
    # Every image has P values: the deviation between images counts P times, and the mean of means is the mean.
    var = (tl.sum(within, axis=0) / P + m2) / N
    tl.store(mean_ptr + c, mean, mask=c < C)
    tl.store(var_ptr + c, var, mask=c < C)


@triton.jit
def affine_grad_kernel(
    s1_ptr,
    s2_ptr,
    scale_ptr,
    dp_ptr,
    squeeze_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    dweight_ptr,
    dbias_ptr,
    p_ptr,
    N,
    C,
    eps,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """dbias = sum_n (scale s1 + dp), dweight = rstd sum_n (scale s2 + dp (squeeze - mean)).

    Without a gate scale = 1 and dp = 0. With one also p[n, c], the mean of the normalised map, which the gradients of
    the gate's weights need. Grid (C / BLOCK_C). Reads up to five arrays of (N, C), writes one; no map. fp32 throughout.
    """
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    mean = tl.load(mean_ptr + c, mask=c < C, other=0.0)
    sum1 = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    sum2 = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        mask = (n[:, None] < N) & (c[None, :] < C)
        offsets = n[:, None].to(tl.int64) * C + c[None, :]
        s1 = tl.load(s1_ptr + offsets, mask=mask, other=0.0)
        s2 = tl.load(s2_ptr + offsets, mask=mask, other=0.0)
        if scale_ptr is not None:
            scale = tl.load(scale_ptr + offsets, mask=mask, other=0.0)
            dp = tl.load(dp_ptr + offsets, mask=mask, other=0.0)
            m = tl.load(squeeze_ptr + offsets, mask=mask, other=0.0)
            s1 = scale * s1 + dp
            s2 = scale * s2 + dp * (m - mean[None, :])
            p = norm_mean(m, weight_ptr, bias_ptr, mean_ptr, var_ptr, c[None, :], C, eps)
            tl.store(p_ptr + offsets, p, mask=mask)
        sum1 += s1
        sum2 += s2
    rstd = tl.rsqrt(tl.load(var_ptr + c, mask=c < C, other=1.0) + eps)
    tl.store(dbias_ptr + c, tl.sum(sum1, axis=0), mask=c < C)
    tl.store(dweight_ptr + c, rstd * tl.sum(sum2, axis=0), mask=c < C)
