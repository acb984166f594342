"""Every channel-attention tail, forward and backward: y = out_act(s * norm(x) + shortcut), s from the mean of norm(x).

Shapes: N images, C channels, P = H*W pixels, R hidden channels, k taps.
    x, shortcut, y, dy, g, dx (N, C, H, W): fp32, fp16 or bf16, dense, all in one layout, NCHW or channels_last
    weight, bias, mean, var (C), w1 (R, C), (C, C) or (k), b1 (R) or (C), w2 (C, R), b2 (C): fp32, contiguous
kind: "none" (s = 1), "se", "ese" or "eca", see `_excite`; norm: "none", "frozen" (mean and var given) or "batch" (x's
own, biased variance); out_act: "identity" or "relu". Sums are fp32 in a fixed order, without atomics: the same input
gives the same bits. Nothing that comes in is written to, nothing that goes out aliases it.
"""

# mypy: disable-error-code="import-untyped"

from typing import Any

import torch
import triton
from torch import Tensor

from seattn_kernels._batch_norm import OVER_IMAGES_TILE, affine_grad_kernel, statistics_kernel
from seattn_kernels._excite import NO_NORM, ExciteGrad, GateWeights, excite, excite_grad, gate_weight_grads
from seattn_kernels._layout import (
    PASS_TILES,
    Layout,
    check_same,
    launch_options,
    layout_of,
    map_args,
    plan_for,
    tile_for,
)
from seattn_kernels._passes import apply_grad_kernel, apply_kernel, moments_kernel, reduce_kernel
from seattn_kernels._sample import sample_bwd, sample_fwd

FwdResult = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
BwdResult = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


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
) -> FwdResult:
    """(y, squeeze, mean, var, hidden, scale): y as x; squeeze = mean_p x and scale = s (N, C), mean, var (C),
    hidden (N, R) before act, fp32; empty (0) where there is none.

    Raises:
        ValueError: if shortcut is not as x in shape, dtype and layout, or x is not dense.
    """
    layout = layout_of(x)
    check_same(x, shortcut=shortcut)
    n, channels = layout.images, layout.channels
    y = torch.empty_like(x)
    gated = kind != "none"
    squeeze, scale = (_small(x, n, channels) if gated else _small(x, 0) for _ in range(2))
    hidden = _small(x, n, w1.shape[0]) if kind == "se" and w1 is not None else _small(x, 0)
    if norm == "frozen":
        assert mean is not None
        assert var is not None
        mean, var = mean.clone(), var.clone()
    elif norm == "batch":  # an empty batch has none
        mean, var = (_small(x, channels).fill_(torch.nan) if n == 0 else _small(x, channels) for _ in range(2))
    else:
        mean, var = _small(x, 0), _small(x, 0)
    result = y, squeeze, mean, var, hidden, scale
    if n == 0:
        return result
    norm_args = _norm_args(weight, bias, mean, var, norm, eps)
    weights = GateWeights(w1, b1, w2, b2)
    if plan_for(layout, x.element_size(), hidden.shape[-1], kind, norm, backward=False) == "sample":
        sample_fwd(layout, x, shortcut, y, squeeze, hidden, scale, norm_args, weights, act, gate, out_act)
        return result
    tile = tile_for(PASS_TILES, layout)
    args, rows = map_args(layout, tile), triton.cdiv(channels, tile.rows)
    if norm == "batch":
        image_mean = squeeze if gated else _small(x, n, channels)
        m2 = _small(x, n, channels)
        moments_kernel[(n, rows)](x, image_mean, m2, **args)
        _over_images(statistics_kernel, layout, image_mean, m2, mean, var, P=layout.pixels)
    elif gated:
        moments_kernel[(n, rows)](x, squeeze, None, **args)
    if gated:
        excite(squeeze, hidden, scale, weights, norm_args, kind, act, gate)
    apply_kernel[(n * triton.cdiv(layout.pixels, tile.cols), rows)](
        x_ptr=x,
        shortcut_ptr=shortcut,
        scale_ptr=scale if gated else None,
        y_ptr=y,
        OUT_ACT=out_act,
        **norm_args,
        **args,
    )
    return result


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
) -> BwdResult:
    """(dx, g, dweight, dbias, dw1, db1, dw2, db2): dx as x, the weights' in fp32 and their shapes; empty (0) if none.

    g, the gradient of the shortcut, is as x where out_act is "relu"; where it is "identity" y is None, that gradient is
    dy itself, and g is empty (0).

    Raises:
        ValueError: if dy or y is not as x in shape, dtype and layout, or x is not dense.
    """
    assert (y is not None) == (out_act == "relu")
    layout = layout_of(x)
    check_same(x, dy=dy, y=y)
    n, channels = layout.images, layout.channels
    normed, gated = norm != "none", kind != "none"
    none = _small(x, 0)
    if not (normed or gated):  # an addition and its ReLU: nothing to fuse
        g = dy.new_empty(0) if y is None else torch.ops.aten.threshold_backward(dy, y, 0)
        dx = (dy if y is None else g).clone()
        return dx, g, none, none.clone(), none.clone(), none.clone(), none.clone(), none.clone()
    dx = torch.empty_like(x)
    g = x.new_empty(0) if y is None else torch.empty_like(x)
    dweight, dbias = (scale.new_zeros(channels) if normed else none.clone() for _ in range(2))
    grad = ExciteGrad(*(torch.empty_like(t) for t in (scale, scale, hidden, hidden)))
    p = torch.empty_like(squeeze) if normed else squeeze  # the mean of the normalised map
    if n > 0 and plan_for(layout, x.element_size(), hidden.shape[-1], kind, norm, backward=True) == "sample":
        sample_bwd(layout, dy, y, x, w1, w2, hidden, scale, g, dx, grad, act, gate)
    elif n > 0:
        norm_args = _norm_args(weight, bias, mean, var, norm, eps)
        tile = tile_for(PASS_TILES, layout)
        args, rows = map_args(layout, tile), triton.cdiv(channels, tile.rows)
        s1, s2 = (_small(x, n, channels) if normed else None for _ in range(2))
        reduce_kernel[(n, rows)](
            dy_ptr=dy,
            y_ptr=y,
            x_ptr=x,
            scale_ptr=scale if gated else None,
            g_ptr=None if y is None else g,
            s1_ptr=s1,
            s2_ptr=s2,
            dz_ptr=grad.dz if gated else None,
            GATE=gate,
            **norm_args,
            **args,
        )
        if gated:
            assert w1 is not None
            excite_grad(grad, hidden, w1, w2, kind, act)
        gate_args = {"scale_ptr": scale if gated else None, "dp_ptr": grad.dp if gated else None}
        if normed:
            _over_images(
                affine_grad_kernel,
                layout,
                s1_ptr=s1,
                s2_ptr=s2,
                squeeze_ptr=squeeze if gated else None,
                dweight_ptr=dweight,
                dbias_ptr=dbias,
                p_ptr=p if gated else None,
                **gate_args,
                **norm_args,
            )
        batch = norm == "batch"
        del norm_args["bias_ptr"]
        apply_grad_kernel[(n * triton.cdiv(layout.pixels, tile.cols), rows)](
            g_ptr=dy if y is None else g,
            x_ptr=x if batch else None,
            dweight_ptr=dweight if batch else None,
            dbias_ptr=dbias if batch else None,
            dx_ptr=dx,
            inv_count=1.0 / (n * layout.pixels),
            **gate_args,
            **norm_args,
            **args,
        )
    if not gated:
        return dx, g, dweight, dbias, none, none.clone(), none.clone(), none.clone()
    assert w1 is not None
    return dx, g, dweight, dbias, *gate_weight_grads(grad, p, w1.shape[0], kind)


def _small(x: Tensor, *size: int) -> Tensor:
    return torch.empty(size, dtype=torch.float32, device=x.device)


def _norm_args(
    weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, norm: str, eps: float
) -> dict[str, Any]:
    """The norm as kernels take it: None for each argument that is not there."""
    if norm == "none":
        return dict(NO_NORM)
    return {"weight_ptr": weight, "bias_ptr": bias, "mean_ptr": mean, "var_ptr": var, "eps": eps}


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
