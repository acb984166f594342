"""y = x * gate(logits) with one logit for each channel of each image, and its backward in one pass.

Shapes: N images, C channels, P = H*W pixels; T = one map's bytes.
    x, y, dy, dx (N, C, H, W): fp32, fp16 or bf16, dense, all of one call in one layout, NCHW or channels_last
    logits, scale = gate(logits), dlogits (N, C): fp32, contiguous
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

from seattn_kernels._layout import PASS_TILES, check_same, layout_of, map_args, offsets_in_image, tile_for
from seattn_kernels._math import gate as gate_of
from seattn_kernels._math import gate_grad


@triton.jit
def channel_gate_kernel(
    x_ptr,
    logits_ptr,
    y_ptr,
    scale_ptr,
    C,
    P,
    GATE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """scale = GATE(logits), y = x * scale. Grid (N * P / BLOCK_P * C / BLOCK_C). 2 T: reads x, writes y."""
    blocks, tiles = tl.cdiv(C, BLOCK_C), tl.cdiv(P, BLOCK_P)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    tile = tl.program_id(0) // blocks
    p = tile % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    n = (tile // tiles).to(tl.int64)
    scale = gate_of(tl.load(logits_ptr + n * C + c, mask=c < C, other=0.0), GATE)
    if tile % tiles == 0:
        tl.store(scale_ptr + n * C + c, scale, mask=c < C)
    mask = (c[:, None] < C) & (p[None, :] < P)
    offsets = n * C * P + offsets_in_image(c, p, C, P, CHANNELS_LAST)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + offsets, (x * scale[:, None]).to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def channel_gate_grad_kernel(
    dy_ptr,
    x_ptr,
    scale_ptr,
    dx_ptr,
    dlogits_ptr,
    C,
    P,
    GATE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """dx = dy * scale, dlogits = GATE'(scale) * sum_p dy * x. Grid (N * C / BLOCK_C).

    3 T: reads dy and x, writes dx.
    """
    blocks = tl.cdiv(C, BLOCK_C)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    scale = tl.load(scale_ptr + n * C + c, mask=c < C, other=0.0)
    acc = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        mask = (c[:, None] < C) & (p[None, :] < P)
        offsets = n * C * P + offsets_in_image(c, p, C, P, CHANNELS_LAST)
        dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        acc += dy * x
        tl.store(dx_ptr + offsets, (dy * scale[:, None]).to(dx_ptr.dtype.element_ty), mask=mask)
    tl.store(dlogits_ptr + n * C + c, gate_grad(tl.sum(acc, axis=1), scale, GATE), mask=c < C)


def channel_gate_fwd(x: Tensor, logits: Tensor, gate: str) -> tuple[Tensor, Tensor]:
    """(y, scale): y as x, scale (N, C) in fp32.

    Raises:
        ValueError: if x is not dense.
    """
    layout = layout_of(x)
    tile = tile_for(PASS_TILES, layout)
    y, scale = torch.empty_like(x), torch.empty_like(logits)
    if layout.images > 0:
        programs = layout.images * triton.cdiv(layout.pixels, tile.cols) * triton.cdiv(layout.channels, tile.rows)
        channel_gate_kernel[(programs,)](x, logits, y, scale, GATE=gate, **map_args(layout, tile))
    return y, scale


def channel_gate_bwd(dy: Tensor, x: Tensor, scale: Tensor, gate: str) -> tuple[Tensor, Tensor]:
    """(dx, dlogits): dx as x, dlogits (N, C) in fp32.

    Raises:
        ValueError: if dy differs from x in shape, dtype or layout, or x is not dense.
    """
    layout = layout_of(x)
    check_same(x, dy=dy)
    tile = tile_for(PASS_TILES, layout)
    dx, dlogits = torch.empty_like(x), torch.empty_like(scale)
    if layout.images > 0:
        programs = layout.images * triton.cdiv(layout.channels, tile.rows)
        channel_gate_grad_kernel[(programs,)](dy, x, scale, dx, dlogits, GATE=gate, **map_args(layout, tile))
    return dx, dlogits
