"""Squeeze-excite with one program a sample: the second read of a map comes from cache, not from memory.

Shapes: N images, C channels, P = H*W pixels, R hidden channels (at most BLOCK_R); T = one map's bytes.
    x, shortcut, y, dy, g, dx (N, C, H, W): fp32, fp16 or bf16, dense, all in one layout, NCHW or channels_last
    squeeze, scale, dz (N, C), hidden, dh, act (N, R), w1 (R, C), b1 (R), w2 (C, R), b2 (C), norm's terms (C): fp32
Grid (N) for both. Sums are fp32, in a fixed order, no atomics. A pointer that is None stands for an absent argument.
T counts what moves between memory and the chip while a sample stays in cache from its first read to its second.
"""

# ruff: noqa: N803  upper case marks sizes and compile-time constants, as Triton's own kernels do
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

import triton
import triton.language as tl
from torch import Tensor

from seattn_kernels._excite import ExciteGrad
from seattn_kernels._layout import SAMPLE_TILES, Layout, map_args, norm_args, offsets_in_image, tile_for
from seattn_kernels._math import act, act_grad, gate, gate_grad, norm_mean, norm_scale
from seattn_kernels.arguments import Excitation, Norm, Saved


@triton.jit
def sample_fwd_kernel(
    x_ptr,
    shortcut_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    y_ptr,
    squeeze_ptr,
    hidden_ptr,
    scale_ptr,
    C,
    P,
    R,
    eps,
    ACT: tl.constexpr,
    GATE: tl.constexpr,
    OUT_ACT: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """y = OUT_ACT(scale * norm(x) + shortcut), scale = GATE(W2 ACT(W1 mean_p norm(x) + b1) + b2).

    Writes squeeze (mean of x), hidden (before ACT) and scale too. 3 T: reads x and shortcut, writes y; 2 T without
    shortcut; x is loaded twice. Loop 1 over channel blocks pools and adds W1's columns to hidden, loop 2 applies.
    """
    n = tl.program_id(0).to(tl.int64)
    image = n * C * P
    r = tl.arange(0, BLOCK_R)
    hidden = tl.zeros((BLOCK_R,), tl.float32)
    for start_c in range(0, C, BLOCK_C):
        c = start_c + tl.arange(0, BLOCK_C)
        total = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
        for start_p in range(0, P, BLOCK_P):
            p = start_p + tl.arange(0, BLOCK_P)
            mask = (c[:, None] < C) & (p[None, :] < P)
            offsets = offsets_in_image(c, p, C, P, CHANNELS_LAST)
            x = tl.load(x_ptr + image + offsets, mask=mask, other=0.0, eviction_policy="evict_last")
            total += x.to(tl.float32)
        m = tl.sum(total, axis=1) / P
        tl.store(squeeze_ptr + n * C + c, m, mask=c < C)
        m = norm_mean(m, weight_ptr, bias_ptr, mean_ptr, var_ptr, c, C, eps)
        w1_mask = (r[:, None] < R) & (c[None, :] < C)  # read here, not above: it would take the loop's registers
        w1 = tl.load(w1_ptr + r[:, None] * C + c[None, :], mask=w1_mask, other=0.0)
        hidden += tl.sum(w1 * m[None, :], axis=1)
    if b1_ptr is not None:
        hidden += tl.load(b1_ptr + r, mask=r < R, other=0.0)
    tl.store(hidden_ptr + n * R + r, hidden, mask=r < R)
    hidden = tl.where(r < R, act(hidden, ACT), 0.0)  # the padding is NaN where a mean is infinite: 0 * inf

    for start_c in range(0, C, BLOCK_C):
        c = start_c + tl.arange(0, BLOCK_C)
        w2_mask = (c[:, None] < C) & (r[None, :] < R)
        w2 = tl.load(w2_ptr + c[:, None] * R + r[None, :], mask=w2_mask, other=0.0)
        z = tl.sum(w2 * hidden[None, :], axis=1)
        if b2_ptr is not None:
            z += tl.load(b2_ptr + c, mask=c < C, other=0.0)
        scale = gate(z, GATE)
        tl.store(scale_ptr + n * C + c, scale, mask=c < C)
        factor = scale
        centre = tl.zeros((BLOCK_C,), tl.float32)
        shift = tl.zeros((BLOCK_C,), tl.float32)
        if mean_ptr is not None:
            factor *= norm_scale(weight_ptr, var_ptr, c, C, eps)
            centre = tl.load(mean_ptr + c, mask=c < C, other=0.0)
            if bias_ptr is not None:
                shift = scale * tl.load(bias_ptr + c, mask=c < C, other=0.0)
        for start_p in range(0, P, BLOCK_P):
            p = start_p + tl.arange(0, BLOCK_P)
            mask = (c[:, None] < C) & (p[None, :] < P)
            offsets = offsets_in_image(c, p, C, P, CHANNELS_LAST)
            y = tl.load(x_ptr + image + offsets, mask=mask, other=0.0, eviction_policy="evict_first").to(tl.float32)
            if mean_ptr is not None:
                y = (y - centre[:, None]) * factor[:, None] + shift[:, None]
            else:
                y *= factor[:, None]
            if shortcut_ptr is not None:
                shortcut = tl.load(shortcut_ptr + image + offsets, mask=mask, other=0.0, eviction_policy="evict_first")
                y += shortcut.to(tl.float32)
            y = act(y, OUT_ACT).to(y_ptr.dtype.element_ty)
            tl.store(y_ptr + image + offsets, y, mask=mask, eviction_policy="evict_first")


@triton.jit
def sample_bwd_kernel(
    dy_ptr,
    y_ptr,
    x_ptr,
    w1_ptr,
    w2_ptr,
    hidden_ptr,
    scale_ptr,
    g_ptr,
    dx_ptr,
    dz_ptr,
    dh_ptr,
    act_ptr,
    C,
    P,
    R,
    ACT: tl.constexpr,
    GATE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """dx = scale * g + W1^T dh / P, g = dy where y > 0 (dy where y_ptr is None), no norm.

    dz = GATE'(scale) sum_p g x, dh = ACT'(hidden) W2^T dz and act = ACT(hidden) are written for the weight gradients.
    5 T: reads dy, y and x, writes g and dx; 3 T without y; g, or dy, is loaded a second time.
    """
    n = tl.program_id(0).to(tl.int64)
    image = n * C * P
    r = tl.arange(0, BLOCK_R)
    dh = tl.zeros((BLOCK_R,), tl.float32)
    for start_c in range(0, C, BLOCK_C):
        c = start_c + tl.arange(0, BLOCK_C)
        total = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
        for start_p in range(0, P, BLOCK_P):
            p = start_p + tl.arange(0, BLOCK_P)
            mask = (c[:, None] < C) & (p[None, :] < P)
            offsets = offsets_in_image(c, p, C, P, CHANNELS_LAST)
            x = tl.load(x_ptr + image + offsets, mask=mask, other=0.0, eviction_policy="evict_first").to(tl.float32)
            if y_ptr is None:
                g = tl.load(dy_ptr + image + offsets, mask=mask, other=0.0, eviction_policy="evict_last")
            else:
                g = tl.load(dy_ptr + image + offsets, mask=mask, other=0.0, eviction_policy="evict_first")
                y = tl.load(y_ptr + image + offsets, mask=mask, other=0.0, eviction_policy="evict_first")
                g = tl.where(y.to(tl.float32) <= 0, 0.0, g)  # not y > 0: a NaN passes the gradient, as in torch
                tl.store(g_ptr + image + offsets, g, mask=mask, eviction_policy="evict_last")
            total += g.to(tl.float32) * x
        scale = tl.load(scale_ptr + n * C + c, mask=c < C, other=0.0)
        dz = gate_grad(tl.sum(total, axis=1), scale, GATE)
        tl.store(dz_ptr + n * C + c, dz, mask=c < C)
        w2_mask = (c[:, None] < C) & (r[None, :] < R)
        w2 = tl.load(w2_ptr + c[:, None] * R + r[None, :], mask=w2_mask, other=0.0)
        dh += tl.sum(w2 * dz[:, None], axis=0)
    hidden = tl.load(hidden_ptr + n * R + r, mask=r < R, other=0.0)
    dh = tl.where(r < R, act_grad(dh, hidden, ACT), 0.0)  # as in the forward: the padding may be NaN
    tl.store(dh_ptr + n * R + r, dh, mask=r < R)
    tl.store(act_ptr + n * R + r, act(hidden, ACT), mask=r < R)
    tl.debug_barrier()  # another thread than the one that wrote g may read it below

    for start_c in range(0, C, BLOCK_C):
        c = start_c + tl.arange(0, BLOCK_C)
        w1_mask = (r[:, None] < R) & (c[None, :] < C)
        w1 = tl.load(w1_ptr + r[:, None] * C + c[None, :], mask=w1_mask, other=0.0)
        shift = tl.sum(w1 * dh[:, None], axis=0) / P
        scale = tl.load(scale_ptr + n * C + c, mask=c < C, other=0.0)
        for start_p in range(0, P, BLOCK_P):
            p = start_p + tl.arange(0, BLOCK_P)
            mask = (c[:, None] < C) & (p[None, :] < P)
            offsets = offsets_in_image(c, p, C, P, CHANNELS_LAST)
            source_ptr = dy_ptr if y_ptr is None else g_ptr
            g = tl.load(source_ptr + image + offsets, mask=mask, other=0.0, eviction_policy="evict_first")
            dx = g.to(tl.float32) * scale[:, None] + shift[:, None]
            dx = dx.to(dx_ptr.dtype.element_ty)
            tl.store(dx_ptr + image + offsets, dx, mask=mask, eviction_policy="evict_first")


def hidden_block(hidden: int) -> int:
    """R rounded up to a power of two, as a block must be; at least 16, so that few variants are compiled."""
    return max(16, int(triton.next_power_of_2(hidden)))


def sample_fwd(
    layout: Layout,
    x: Tensor,
    shortcut: Tensor | None,
    y: Tensor,
    excitation: Excitation,
    norm: Norm,
    saved: Saved,
    out_act: str,
) -> None:
    """Launch `sample_fwd_kernel`, which fills y and the three tensors of `saved`."""
    hidden_channels = saved.hidden.shape[1]
    sample_fwd_kernel[(layout.images,)](
        x_ptr=x,
        shortcut_ptr=shortcut,
        w1_ptr=excitation.w1,
        b1_ptr=excitation.b1,
        w2_ptr=excitation.w2,
        b2_ptr=excitation.b2,
        y_ptr=y,
        squeeze_ptr=saved.squeeze,
        hidden_ptr=saved.hidden,
        scale_ptr=saved.scale,
        R=hidden_channels,
        ACT=excitation.act,
        GATE=excitation.gate,
        OUT_ACT=out_act,
        BLOCK_R=hidden_block(hidden_channels),
        **norm_args(norm),
        **map_args(layout, tile_for(SAMPLE_TILES, layout)),
    )


def sample_bwd(
    layout: Layout,
    dy: Tensor,
    y: Tensor | None,
    x: Tensor,
    excitation: Excitation,
    saved: Saved,
    g: Tensor,
    dx: Tensor,
    grad: ExciteGrad,
) -> None:
    """Launch `sample_bwd_kernel`, which fills dx, grad.dz, grad.dh and grad.hidden_act, and g unless y is None."""
    hidden_channels = saved.hidden.shape[1]
    sample_bwd_kernel[(layout.images,)](
        dy_ptr=dy,
        y_ptr=y,
        x_ptr=x,
        w1_ptr=excitation.w1,
        w2_ptr=excitation.w2,
        hidden_ptr=saved.hidden,
        scale_ptr=saved.scale,
        g_ptr=None if y is None else g,
        dx_ptr=dx,
        dz_ptr=grad.dz,
        dh_ptr=grad.dh,
        act_ptr=grad.hidden_act,
        R=hidden_channels,
        ACT=excitation.act,
        GATE=excitation.gate,
        BLOCK_R=hidden_block(hidden_channels),
        **map_args(layout, tile_for(SAMPLE_TILES, layout)),
    )
