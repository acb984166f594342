"""CBAM's spatial gate: the four passes over a map. Between them torch works on one or two numbers for each pixel.

Shapes: N images, C channels, P = H*W pixels; T = one map's bytes.
    x, y, dy, dx (N, C, H, W): fp32, fp16 or bf16, dense, all of one call in one layout, NCHW or channels_last
    pooled, dpooled (N, 2, H, W): maximum, then mean over channels where MAX_FIRST, else mean, then maximum
    z, scale, dlogits, ties (N, H, W): fp32, contiguous, as pooled and dpooled
Offsets within an image are int32 (C*P below 2^31), those of images int64. Sums are fp32, in a fixed order, no atomics:
the same input gives the same bits. All programs are on the first axis of the grid: the others end at 65,535.
"""

# ruff: noqa: N803  upper case marks sizes and compile-time constants, as Triton's own kernels do
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

import torch
import triton
import triton.language as tl
from torch import Tensor

from seattn_kernels._layout import (
    PASS_TILES,
    Row,
    Tile,
    check_same,
    layout_of,
    map_args,
    norm_args,
    offsets_in_image,
    tile_for,
)
from seattn_kernels._math import gate as gate_of
from seattn_kernels._math import gate_grad, peak_step, peak_total
from seattn_kernels.arguments import Norm

# For the two passes that loop over channels. In NCHW these tiles have fewer pixels than PASS_TILES, where a tile of
# 1,024 pixels would be a whole image of 32 x 32.
CHANNEL_LOOP_TILES: dict[bool, tuple[Row, ...]] = {  # by channels_last
    False: (Row(None, 64, Tile(32, 64, 4)), Row(None, None, Tile(16, 128, 4))),
    True: PASS_TILES[True],
}


@triton.jit
def pool_channels_kernel(
    x_ptr,
    pooled_ptr,
    C,
    P,
    MAX_FIRST: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """pooled = [max_c x, mean_c x], in that order where MAX_FIRST. Grid (N * P / BLOCK_P). 1 T: reads x."""
    tiles = tl.cdiv(P, BLOCK_P)
    n = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    total = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    peak = tl.full((BLOCK_C, BLOCK_P), float("-inf"), tl.float32)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        mask = (c[:, None] < C) & (p[None, :] < P)
        offsets = n * C * P + offsets_in_image(c, p, C, P, CHANNELS_LAST)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        total += x
        peak = peak_step(peak, x, mask)
    peak_plane = 0 if MAX_FIRST else 1
    tl.store(pooled_ptr + (2 * n + peak_plane) * P + p, peak_total(peak, 0), mask=p < P)
    tl.store(pooled_ptr + (2 * n + 1 - peak_plane) * P + p, tl.sum(total, axis=0) / C, mask=p < P)


@triton.jit
def pixel_gate_kernel(
    x_ptr,
    z_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    y_ptr,
    scale_ptr,
    C,
    P,
    eps,
    GATE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """scale = GATE(norm(z)), y = x * scale. Grid (N * P / BLOCK_P * C / BLOCK_C). 2 T: reads x, writes y.

    norm(z) = weight * (z - mean) * rsqrt(var + eps) + bias, one number each; z itself where mean_ptr is None.
    """
    blocks, tiles = tl.cdiv(C, BLOCK_C), tl.cdiv(P, BLOCK_P)
    block = tl.program_id(0) % blocks
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    tile = tl.program_id(0) // blocks
    p = tile % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    n = (tile // tiles).to(tl.int64)
    z = tl.load(z_ptr + n * P + p, mask=p < P, other=0.0)
    if mean_ptr is not None:
        z = (z - tl.load(mean_ptr)) * tl.rsqrt(tl.load(var_ptr) + eps)
        if weight_ptr is not None:
            z *= tl.load(weight_ptr)
        if bias_ptr is not None:
            z += tl.load(bias_ptr)
    scale = gate_of(z, GATE)
    if block == 0:
        tl.store(scale_ptr + n * P + p, scale, mask=p < P)
    mask = (c[:, None] < C) & (p[None, :] < P)
    offsets = n * C * P + offsets_in_image(c, p, C, P, CHANNELS_LAST)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + offsets, (x * scale[None, :]).to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def reduce_channels_kernel(
    dy_ptr,
    x_ptr,
    scale_ptr,
    pooled_ptr,
    dlogits_ptr,
    ties_ptr,
    C,
    P,
    GATE: tl.constexpr,
    MAX_FIRST: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """dlogits = GATE'(scale) * sum_c dy * x; ties = how many channels hold the maximum. Grid (N * P / BLOCK_P).

    2 T: reads dy and x.
    """
    tiles = tl.cdiv(P, BLOCK_P)
    n = (tl.program_id(0) // tiles).to(tl.int64)
    p = tl.program_id(0) % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    peak_plane = 0 if MAX_FIRST else 1
    peak = tl.load(pooled_ptr + (2 * n + peak_plane) * P + p, mask=p < P, other=0.0)
    acc = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    ties = tl.zeros((BLOCK_C, BLOCK_P), tl.int32)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        mask = (c[:, None] < C) & (p[None, :] < P)
        offsets = n * C * P + offsets_in_image(c, p, C, P, CHANNELS_LAST)
        dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        acc += dy * x
        ties += tl.where(mask & (x == peak[None, :]), 1, 0)
    scale = tl.load(scale_ptr + n * P + p, mask=p < P, other=0.0)
    tl.store(dlogits_ptr + n * P + p, gate_grad(tl.sum(acc, axis=0), scale, GATE), mask=p < P)
    tl.store(ties_ptr + n * P + p, tl.sum(ties, axis=0).to(tl.float32), mask=p < P)


@triton.jit
def pixel_gate_grad_kernel(
    dy_ptr,
    x_ptr,
    scale_ptr,
    pooled_ptr,
    dpooled_ptr,
    ties_ptr,
    dx_ptr,
    C,
    P,
    MAX_FIRST: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """dx = dy * scale + (gradient of the mean) / C + (gradient of the maximum) / ties where x is the maximum.

    Grid (N * P / BLOCK_P * C / BLOCK_C). 3 T: reads dy and x, writes dx.
    """
    blocks, tiles = tl.cdiv(C, BLOCK_C), tl.cdiv(P, BLOCK_P)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    tile = tl.program_id(0) // blocks
    p = tile % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    n = (tile // tiles).to(tl.int64)
    peak_plane = 0 if MAX_FIRST else 1
    peak_row, mean_row = (2 * n + peak_plane) * P + p, (2 * n + 1 - peak_plane) * P + p
    scale = tl.load(scale_ptr + n * P + p, mask=p < P, other=0.0)
    shift = tl.load(dpooled_ptr + mean_row, mask=p < P, other=0.0) / C
    peak = tl.load(pooled_ptr + peak_row, mask=p < P, other=0.0)
    at_peak = tl.load(dpooled_ptr + peak_row, mask=p < P, other=0.0)
    at_peak /= tl.load(ties_ptr + n * P + p, mask=p < P, other=1.0)
    mask = (c[:, None] < C) & (p[None, :] < P)
    offsets = n * C * P + offsets_in_image(c, p, C, P, CHANNELS_LAST)
    dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    dx = dy * scale[None, :] + shift[None, :] + tl.where(x == peak[None, :], at_peak[None, :], 0.0)
    tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=mask)


def pool_channels(x: Tensor, max_first: bool) -> Tensor:
    """(N, 2, H, W) in fp32: maximum and mean over channels, in that order where max_first.

    Raises:
        ValueError: if x is not dense.
    """
    layout = layout_of(x)
    tile = tile_for(CHANNEL_LOOP_TILES, layout)
    pooled = torch.empty((layout.images, 2, *x.shape[2:]), dtype=torch.float32, device=x.device)
    if layout.images > 0:
        programs = layout.images * triton.cdiv(layout.pixels, tile.cols)
        pool_channels_kernel[(programs,)](x, pooled, MAX_FIRST=max_first, **map_args(layout, tile))
    return pooled


def pixel_gate(x: Tensor, z: Tensor, norm: Norm, gate: str) -> tuple[Tensor, Tensor]:
    """(y, scale): y as x, scale = gate(norm(z)) (N, H, W) in fp32. The norm's tensors are (1)."""
    layout = layout_of(x)
    tile = tile_for(PASS_TILES, layout)
    y, scale = torch.empty_like(x), torch.empty_like(z)
    if layout.images > 0:
        programs = layout.images * triton.cdiv(layout.pixels, tile.cols) * triton.cdiv(layout.channels, tile.rows)
        args = {"GATE": gate, **norm_args(norm), **map_args(layout, tile)}
        pixel_gate_kernel[(programs,)](x_ptr=x, z_ptr=z, y_ptr=y, scale_ptr=scale, **args)
    return y, scale


def reduce_channels(
    dy: Tensor, x: Tensor, scale: Tensor, pooled: Tensor, gate: str, max_first: bool
) -> tuple[Tensor, Tensor]:
    """(dlogits, ties), (N, H, W) each: the gradient of the logits, and how many channels share the maximum.

    Raises:
        ValueError: if dy differs from x in shape, dtype or layout, or x is not dense.
    """
    layout = layout_of(x)
    check_same(x, dy=dy)
    tile = tile_for(CHANNEL_LOOP_TILES, layout)
    dlogits, ties = torch.empty_like(scale), torch.empty_like(scale)
    if layout.images > 0:
        programs = layout.images * triton.cdiv(layout.pixels, tile.cols)
        args = {"GATE": gate, "MAX_FIRST": max_first, **map_args(layout, tile)}
        reduce_channels_kernel[(programs,)](dy, x, scale, pooled, dlogits, ties, **args)
    return dlogits, ties


def pixel_gate_grad(
    dy: Tensor, x: Tensor, scale: Tensor, pooled: Tensor, dpooled: Tensor, ties: Tensor, max_first: bool
) -> Tensor:
    """dx, as x: through the product, the mean and the maximum."""
    layout, dpooled = layout_of(x), dpooled.contiguous()
    tile = tile_for(PASS_TILES, layout)
    dx = torch.empty_like(x)
    if layout.images > 0:
        programs = layout.images * triton.cdiv(layout.pixels, tile.cols) * triton.cdiv(layout.channels, tile.rows)
        args = {"MAX_FIRST": max_first, **map_args(layout, tile)}
        pixel_gate_grad_kernel[(programs,)](dy, x, scale, pooled, dpooled, ties, dx, **args)
    return dx
