"""Every channel-attention tail, forward and backward: y = out_act(s * norm(x) + shortcut), s from the mean of norm(x).

Shapes: N images, C channels, P = H*W pixels, R hidden channels, k taps.
    x, shortcut, y, dy, g, dx (N, C, H, W): fp32, fp16 or bf16, dense, all in one layout, NCHW or channels_last
    the weights of an excitation and of a norm, statistics and gates: see `arguments`, fp32, contiguous
out_act is "identity" or "relu". Sums are fp32 in a fixed order, without atomics: the same input gives the same bits.
No input is written to, and no result shares memory with an input.
"""

# mypy: disable-error-code="import-untyped"

from typing import Any

import torch
import triton
from torch import Tensor

from seattn_kernels._batch_norm import OVER_IMAGES_TILE, affine_grad_kernel, statistics_kernel
from seattn_kernels._excite import ExciteGrad, excite, excite_grad, excite_weight_grads
from seattn_kernels._layout import (
    PASS_TILES,
    Layout,
    check_same,
    launch_options,
    layout_of,
    map_args,
    norm_args,
    plan_for,
    tile_for,
)
from seattn_kernels._passes import apply_grad_kernel, apply_kernel, moments_kernel, reduce_kernel
from seattn_kernels._sample import sample_bwd, sample_fwd
from seattn_kernels.arguments import Excitation, Norm, Saved

FwdResult = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
BwdResult = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def attn_tail_fwd(x: Tensor, shortcut: Tensor | None, excitation: Excitation, norm: Norm, out_act: str) -> FwdResult:
    """The result of the tail, and what its backward needs.

    Returns:
        y: as x.
        squeeze: (N, C), fp32: the mean of each channel.
        mean, var: (C), fp32: of the batch; empty (0) with a frozen norm and without a norm.
        hidden: (N, R), fp32: the hidden layer of SE before its activation; empty (0) for other kinds.
        scale: (N, C), fp32: the gates. squeeze and scale are empty (0) without attention.

    Raises:
        ValueError: if shortcut differs from x in shape, dtype or layout, or x is not dense.
    """
    layout = layout_of(x)
    check_same(x, shortcut=shortcut)
    n, channels, gated = layout.images, layout.channels, excitation.kind != "none"
    y = torch.empty_like(x)
    squeeze, scale = (_small(x, n, channels) if gated else _small(x, 0) for _ in range(2))
    w1 = excitation.w1
    hidden = _small(x, n, w1.shape[0]) if excitation.kind == "se" and w1 is not None else _small(x, 0)
    saved = Saved(squeeze, hidden, scale)
    mean, var = _statistics(x, norm)
    result = y, squeeze, mean, var, hidden, scale
    if n == 0:
        return result
    if norm.kind == "batch":
        norm = Norm(norm.kind, norm.weight, norm.bias, mean, var, norm.eps)
    if plan_for(layout, x.element_size(), hidden.shape[-1], excitation.kind, norm.kind, backward=False) == "sample":
        sample_fwd(layout, x, shortcut, y, excitation, norm, saved, out_act)
        return result
    tile = tile_for(PASS_TILES, layout)
    args, rows = map_args(layout, tile), triton.cdiv(channels, tile.rows)
    if norm.kind == "batch":
        image_mean = squeeze if gated else _small(x, n, channels)
        m2 = _small(x, n, channels)
        moments_kernel[(n, rows)](x, image_mean, m2, **args)
        _over_images(statistics_kernel, layout, image_mean, m2, mean, var, P=layout.pixels)
    elif gated:
        moments_kernel[(n, rows)](x, squeeze, None, **args)
    if gated:
        excite(excitation, norm, saved)
    apply_kernel[(n * triton.cdiv(layout.pixels, tile.cols), rows)](
        x_ptr=x,
        shortcut_ptr=shortcut,
        scale_ptr=scale if gated else None,
        y_ptr=y,
        OUT_ACT=out_act,
        **norm_args(norm),
        **args,
    )
    return result


def attn_tail_bwd(
    dy: Tensor, x: Tensor, y: Tensor | None, excitation: Excitation, norm: Norm, saved: Saved
) -> BwdResult:
    """(dx, g, dweight, dbias, dw1, db1, dw2, db2): dx as x, the weights' in fp32 and their shapes; empty (0) if none.

    y is the result of the forward where out_act is "relu"; then g, the gradient of the shortcut, is as x. Where out_act
    is "identity", y is None, the gradient of the shortcut is dy itself, and g is empty (0).

    Raises:
        ValueError: if dy or y differs from x in shape, dtype or layout, or x is not dense.
    """
    layout = layout_of(x)
    check_same(x, dy=dy, y=y)
    n, channels = layout.images, layout.channels
    normed, gated = norm.kind != "none", excitation.kind != "none"
    grad = ExciteGrad.like(saved)
    memory = saved.scale.new_empty if n > 0 else saved.scale.new_zeros  # a kernel fills it
    dweight, dbias = (memory(channels if normed else 0) for _ in range(2))
    if not (normed or gated):  # an addition and its ReLU: nothing to fuse
        g = dy.new_empty(0) if y is None else torch.ops.aten.threshold_backward(dy, y, 0)
        dx = (dy if y is None else g).clone()
        return dx, g, dweight, dbias, *excite_weight_grads(excitation, grad, saved.squeeze)
    dx = torch.empty_like(x)
    g = x.new_empty(0) if y is None else torch.empty_like(x)
    p = torch.empty_like(saved.squeeze) if normed else saved.squeeze  # the mean of the normalised map
    plan = plan_for(layout, x.element_size(), saved.hidden.shape[-1], excitation.kind, norm.kind, backward=True)
    if n > 0 and plan == "sample":
        sample_bwd(layout, dy, y, x, excitation, saved, g, dx, grad)
    elif n > 0:
        tile = tile_for(PASS_TILES, layout)
        args, rows = map_args(layout, tile), triton.cdiv(channels, tile.rows)
        pointers = norm_args(norm)
        s1, s2 = (_small(x, n, channels) if normed else None for _ in range(2))
        reduce_kernel[(n, rows)](
            dy_ptr=dy,
            y_ptr=y,
            x_ptr=x,
            scale_ptr=saved.scale if gated else None,
            g_ptr=None if y is None else g,
            s1_ptr=s1,
            s2_ptr=s2,
            dz_ptr=grad.dz if gated else None,
            GATE=excitation.gate,
            **pointers,
            **args,
        )
        if gated:
            excite_grad(excitation, saved, grad)
        gate_args = {"scale_ptr": saved.scale if gated else None, "dp_ptr": grad.dp if gated else None}
        if normed:
            _over_images(
                affine_grad_kernel,
                layout,
                s1_ptr=s1,
                s2_ptr=s2,
                squeeze_ptr=saved.squeeze if gated else None,
                dweight_ptr=dweight,
                dbias_ptr=dbias,
                p_ptr=p if gated else None,
                **gate_args,
                **pointers,
            )
        batch = norm.kind == "batch"
        del pointers["bias_ptr"]
        apply_grad_kernel[(n * triton.cdiv(layout.pixels, tile.cols), rows)](
            g_ptr=dy if y is None else g,
            x_ptr=x if batch else None,
            dweight_ptr=dweight if batch else None,
            dbias_ptr=dbias if batch else None,
            dx_ptr=dx,
            inv_count=1.0 / (n * layout.pixels),
            **gate_args,
            **pointers,
            **args,
        )
    return dx, g, dweight, dbias, *excite_weight_grads(excitation, grad, p)


def _statistics(x: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Mean and variance of the batch as results of the forward: memory for a kernel to fill."""
    channels = x.shape[1] if norm.kind == "batch" else 0
    mean, var = _small(x, channels), _small(x, channels)
    return (mean.fill_(torch.nan), var.fill_(torch.nan)) if x.shape[0] == 0 else (mean, var)  # no image, no statistics


def _small(x: Tensor, *size: int) -> Tensor:
    return torch.empty(size, dtype=torch.float32, device=x.device)


def _over_images(kernel: Any, layout: Layout, *args: Any, **named: Any) -> None:
    tile = OVER_IMAGES_TILE
    kernel[(triton.cdiv(layout.channels, tile.cols),)](
        *args,
        N=layout.images,
        C=layout.channels,
        BLOCK_N=tile.rows,
        BLOCK_C=tile.cols,
        **named,
        **launch_options(tile.num_warps),
    )
