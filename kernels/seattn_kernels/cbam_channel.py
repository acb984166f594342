"""CBAM's channel gate: y = x * gate(mlp(mean_p x) + mlp(max_p x)), mlp(v) = W2 act(W1 v + b1) + b2.

Shapes: N images, C channels, P = H*W pixels, R hidden channels; T = one map's bytes.
    x, y, dy, dx (N, C, H, W): fp32, fp16 or bf16, dense, all of one call in one layout, NCHW or channels_last
    pooled, dpooled (2, N, C): mean, then maximum; hidden, dh (2, N, R); scale, logits, dz, ties (N, C); w1 (R, C),
    b1 (R), w2 (C, R), b2 (C): fp32, contiguous
W2 is linear, so it is applied once, to the sum of both activations. Offsets within an image are int32 (C*P below 2^31),
those of images int64. Sums are fp32, in a fixed order, no atomics: the same input gives the same bits.
"""

# ruff: noqa: N803  upper case marks sizes and compile-time constants, as Triton's own kernels do
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from seattn_kernels._layout import (
    PASS_TILES,
    check_same,
    launch_options,
    layout_of,
    map_args,
    offsets_in_image,
    tile_for,
)
from seattn_kernels._linear import linear, linear_tile
from seattn_kernels._math import act as act_of
from seattn_kernels._math import act_grad, gate_grad, peak_step, peak_total
from seattn_kernels.channel_gate import channel_gate_fwd


@triton.jit
def pool_pixels_kernel(
    x_ptr, pooled_ptr, N, C, P, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr
):
    """pooled[0, n, c] = mean_p x, pooled[1, n, c] = max_p x. Grid (N * C / BLOCK_C). 1 T: reads x."""
    blocks = tl.cdiv(C, BLOCK_C)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    peak = tl.full((BLOCK_C, BLOCK_P), float("-inf"), tl.float32)
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        mask = (c[:, None] < C) & (p[None, :] < P)
        offsets = n * C * P + offsets_in_image(c, p, C, P, CHANNELS_LAST)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        total += x
        peak = peak_step(peak, x, mask)
    tl.store(pooled_ptr + n * C + c, tl.sum(total, axis=1) / P, mask=c < C)
    tl.store(pooled_ptr + (N + n) * C + c, peak_total(peak, 1), mask=c < C)


@triton.jit
def reduce_pixels_kernel(
    dy_ptr,
    x_ptr,
    scale_ptr,
    pooled_ptr,
    dz_ptr,
    ties_ptr,
    N,
    C,
    P,
    GATE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """dz = GATE'(scale) * sum_p dy * x; ties = the number of pixels that have the maximum. Grid (N * C / BLOCK_C).

    2 T: reads dy and x.
    """
    blocks = tl.cdiv(C, BLOCK_C)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    peak = tl.load(pooled_ptr + (N + n) * C + c, mask=c < C, other=0.0)
    acc = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    ties = tl.zeros((BLOCK_C, BLOCK_P), tl.int32)  # fp32 stops counting at 2^24
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        mask = (c[:, None] < C) & (p[None, :] < P)
        offsets = n * C * P + offsets_in_image(c, p, C, P, CHANNELS_LAST)
        dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        acc += dy * x
        ties += tl.where(mask & (x == peak[:, None]), 1, 0)
    scale = tl.load(scale_ptr + n * C + c, mask=c < C, other=0.0)
    tl.store(dz_ptr + n * C + c, gate_grad(tl.sum(acc, axis=1), scale, GATE), mask=c < C)
    tl.store(ties_ptr + n * C + c, tl.sum(ties, axis=1).to(tl.float32), mask=c < C)


@triton.jit
def pooled_gate_grad_kernel(
    dy_ptr,
    x_ptr,
    scale_ptr,
    pooled_ptr,
    dpooled_ptr,
    ties_ptr,
    dx_ptr,
    N,
    C,
    P,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """dx = dy * scale + dpooled[0] / P + (dpooled[1] / ties where x is the maximum).

    Grid (N * P / BLOCK_P * C / BLOCK_C). 3 T: reads dy and x, writes dx.
    """
    blocks, tiles = tl.cdiv(C, BLOCK_C), tl.cdiv(P, BLOCK_P)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    tile = tl.program_id(0) // blocks
    p = tile % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    n = (tile // tiles).to(tl.int64)
    row = n * C + c
    scale = tl.load(scale_ptr + row, mask=c < C, other=0.0)
    shift = tl.load(dpooled_ptr + row, mask=c < C, other=0.0) / P
    peak = tl.load(pooled_ptr + (N + n) * C + c, mask=c < C, other=0.0)
    at_peak = tl.load(dpooled_ptr + (N + n) * C + c, mask=c < C, other=0.0)
    at_peak /= tl.load(ties_ptr + row, mask=c < C, other=1.0)
    mask = (c[:, None] < C) & (p[None, :] < P)
    offsets = n * C * P + offsets_in_image(c, p, C, P, CHANNELS_LAST)
    dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    dx = dy * scale[:, None] + shift[:, None] + tl.where(x == peak[:, None], at_peak[:, None], 0.0)
    tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=mask)


@triton.jit
def pair_logits_kernel(
    hidden_ptr,
    w2_ptr,
    b2_ptr,
    logits_ptr,
    N,
    R,
    C,
    ACT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """logits = W2 (ACT(hidden[0]) + ACT(hidden[1])) + 2 b2. Grid (N / BLOCK_N, C / BLOCK_C). fp32, no tf32; no map."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    row = n[:, None].to(tl.int64)
    acc = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(0, R, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        mask = (n[:, None] < N) & (r[None, :] < R)
        mean_hidden = tl.load(hidden_ptr + row * R + r[None, :], mask=mask, other=0.0)
        peak_hidden = tl.load(hidden_ptr + (N + row) * R + r[None, :], mask=mask, other=0.0)
        w2 = tl.load(w2_ptr + c[None, :] * R + r[:, None], mask=(c[None, :] < C) & (r[:, None] < R), other=0.0)
        acc = tl.dot(act_of(mean_hidden, ACT) + act_of(peak_hidden, ACT), w2, acc, input_precision="ieee")
    if b2_ptr is not None:
        acc += 2.0 * tl.load(b2_ptr + c, mask=c < C, other=0.0)[None, :]
    tl.store(logits_ptr + row * C + c[None, :], acc, mask=(n[:, None] < N) & (c[None, :] < C))


@triton.jit
def pair_hidden_grad_kernel(
    dz_ptr,
    w2_ptr,
    hidden_ptr,
    dh_ptr,
    act_ptr,
    N,
    R,
    C,
    ACT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """dh[i] = (dz W2) * ACT'(hidden[i]); act (N, R) = ACT(hidden[0]) + ACT(hidden[1]), which dW2 needs.

    Grid (N / BLOCK_N, R / BLOCK_R). fp32, no tf32; no map.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    r = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    row = n[:, None].to(tl.int64)
    acc = tl.zeros((BLOCK_N, BLOCK_R), tl.float32)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        dz = tl.load(dz_ptr + row * C + c[None, :], mask=(n[:, None] < N) & (c[None, :] < C), other=0.0)
        w2 = tl.load(w2_ptr + c[:, None] * R + r[None, :], mask=(c[:, None] < C) & (r[None, :] < R), other=0.0)
        acc = tl.dot(dz, w2, acc, input_precision="ieee")
    mask = (n[:, None] < N) & (r[None, :] < R)
    mean_hidden = tl.load(hidden_ptr + row * R + r[None, :], mask=mask, other=0.0)
    peak_hidden = tl.load(hidden_ptr + (N + row) * R + r[None, :], mask=mask, other=0.0)
    tl.store(dh_ptr + row * R + r[None, :], act_grad(acc, mean_hidden, ACT), mask=mask)
    tl.store(dh_ptr + (N + row) * R + r[None, :], act_grad(acc, peak_hidden, ACT), mask=mask)
    tl.store(act_ptr + row * R + r[None, :], act_of(mean_hidden, ACT) + act_of(peak_hidden, ACT), mask=mask)


def cbam_channel_fwd(
    x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(y, pooled, hidden, scale): y as x; pooled (2, N, C), hidden (2, N, R) before act and scale (N, C) in fp32.

    Raises:
        ValueError: if x is not dense.
    """
    layout = layout_of(x)
    n, channels, hidden_channels = layout.images, layout.channels, w1.shape[0]
    pooled = torch.empty((2, n, channels), dtype=torch.float32, device=x.device)
    hidden = pooled.new_empty((2, n, hidden_channels))
    logits = pooled.new_empty((n, channels))
    if n > 0:
        tile = tile_for(PASS_TILES, layout)
        blocks = triton.cdiv(channels, tile.rows)
        pool_pixels_kernel[(n * blocks,)](x, pooled, n, **map_args(layout, tile))
        linear(pooled.flatten(0, 1), w1, hidden.flatten(0, 1), b=b1)
        small = linear_tile(channels)
        grid = (triton.cdiv(n, small.images), triton.cdiv(channels, small.outputs))
        pair_logits_kernel[grid](hidden, w2, b2, logits, **_pair_args(n, w2, act, small.outputs, small.inputs))
    y, scale = channel_gate_fwd(x, logits, gate)
    return y, pooled, hidden, scale


def cbam_channel_bwd(
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
    """(dx, dw1, db1, dw2, db2): dx as x, the others in fp32 and the shapes of their weights.

    Raises:
        ValueError: if dy differs from x in shape, dtype or layout, or x is not dense.
    """
    layout = layout_of(x)
    check_same(x, dy=dy)
    n, channels, hidden_channels = layout.images, layout.channels, w1.shape[0]
    dx, dz, ties = torch.empty_like(x), torch.empty_like(scale), torch.empty_like(scale)
    dh, dpooled, hidden_act = torch.empty_like(hidden), torch.empty_like(pooled), hidden.new_empty((n, hidden_channels))
    if n > 0:
        tile = tile_for(PASS_TILES, layout)
        args, blocks = map_args(layout, tile), triton.cdiv(channels, tile.rows)
        reduce_pixels_kernel[(n * blocks,)](dy, x, scale, pooled, dz, ties, n, GATE=gate, **args)
        small = linear_tile(hidden_channels)
        grid = (triton.cdiv(n, small.images), triton.cdiv(hidden_channels, small.outputs))
        pair_hidden_grad_kernel[grid](
            dz, w2, hidden, dh, hidden_act, **_pair_args(n, w2, act, small.inputs, small.outputs)
        )
        linear(dh.flatten(0, 1), w1, dpooled.flatten(0, 1), transposed=True)
        programs = n * triton.cdiv(layout.pixels, tile.cols) * blocks
        pooled_gate_grad_kernel[(programs,)](dy, x, scale, pooled, dpooled, ties, dx, n, **args)
    # Each sum over images is one small matrix product of torch, in a fixed order; zeros for an empty batch.
    dw1 = dh.flatten(0, 1).t() @ pooled.flatten(0, 1)
    return dx, dw1, dh.sum((0, 1)), dz.t() @ hidden_act, 2 * dz.sum(0)


def _pair_args(n: int, w2: Tensor, act: str, block_c: int, block_r: int) -> dict[str, Any]:
    channels, hidden_channels = w2.shape
    tile = linear_tile(channels)
    return {
        "N": n,
        "R": hidden_channels,
        "C": channels,
        "ACT": act,
        "BLOCK_N": tile.images,
        "BLOCK_C": block_c,
        "BLOCK_R": block_r,
        **launch_options(tile.num_warps),
    }
