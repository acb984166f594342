"""Squeeze-excite, forward and backward, in Triton.

Hu et al., CVPR 2018, https://arxiv.org/abs/1709.01507, eq. 2-4:
    mean = mean_p x;  hidden = W1 mean + b1;  scale = gate(W2 act(hidden) + b2);  y = x * scale
Backward, with dy given:
    dz = gate'(scale) * sum_p dy x;  dh = act'(hidden) * W2^T dz;  dx = dy * scale + W1^T dh / P
    dW2 = dz^T act(hidden);  db2 = sum_n dz;  dW1 = dh^T mean;  db1 = sum_n dh

Shapes: N images, C channels, P = H*W pixels, R hidden channels.
    x, y, dy, dx (N, C, H, W) fp32, fp16 or bf16, dense: NCHW or channels_last, all of one call in the same layout
    mean, scale, dz (N, C), hidden, dh (N, R), w1 (R, C), b1 (R), w2 (C, R), b2 (C): fp32, contiguous
Every sum is accumulated in fp32 in a fixed order, without atomics: the same input gives the same bits.
"""

# ruff: noqa: N803  upper case marks sizes and compile-time constants, as Triton's own kernels do
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from seattn_kernels._math import act, act_grad, gate, gate_grad


class Tile(NamedTuple):
    """One program's tile of an image: channels x pixels, or outputs x inputs for a matrix times a vector."""

    rows: int
    cols: int
    num_warps: int


# Rows are tried from the top; the first whose limit is not exceeded is taken. A tile is longest along the dimension
# that is contiguous in memory. Chosen by hand so that nothing spills on sm_90; not tuned on a GPU.
NCHW_TILES: tuple[tuple[int | None, Tile], ...] = (  # limit: pixels
    (64, Tile(32, 64, 4)),
    (256, Tile(8, 256, 4)),
    (None, Tile(2, 1024, 4)),
)
CHANNELS_LAST_TILES: tuple[tuple[int | None, Tile], ...] = (  # limit: channels
    (16, Tile(16, 128, 4)),
    (32, Tile(32, 64, 4)),
    (None, Tile(64, 32, 4)),
)
MATVEC_TILE = Tile(32, 64, 4)


@triton.jit
def _offsets(c, p, C, P, CHANNELS_LAST: tl.constexpr):
    """Offsets within one image. int32: the caller holds C*P below 2^31."""
    return c[:, None] + p[None, :] * C if CHANNELS_LAST else c[:, None] * P + p[None, :]  # (BLOCK_C, BLOCK_P)


@triton.jit
def _pool_kernel(x_ptr, mean_ptr, C, P, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """mean[n, c] = sum_p x / P. Grid (N, C / BLOCK_C)."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    acc = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        mask = (c[:, None] < C) & (p[None, :] < P)
        x = tl.load(x_ptr + n * C * P + _offsets(c, p, C, P, CHANNELS_LAST), mask=mask, other=0.0)
        acc += x.to(tl.float32)
    tl.store(mean_ptr + n * C + c, tl.sum(acc, axis=1) / P, mask=c < C)


@triton.jit
def _gate_grad_kernel(
    dy_ptr,
    x_ptr,
    scale_ptr,
    dz_ptr,
    C,
    P,
    GATE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """dz[n, c] = gate'(scale) * sum_p dy x. Grid (N, C / BLOCK_C)."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    acc = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    for start in range(0, P, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        mask = (c[:, None] < C) & (p[None, :] < P)
        offsets = n * C * P + _offsets(c, p, C, P, CHANNELS_LAST)
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        acc += dy * x
    scale = tl.load(scale_ptr + n * C + c, mask=c < C, other=0.0)
    tl.store(dz_ptr + n * C + c, tl.sum(acc, axis=1) * gate_grad(scale, GATE), mask=c < C)


@triton.jit
def _scale_kernel(
    x_ptr,
    scale_ptr,
    shift_ptr,
    y_ptr,
    C,
    P,
    SHIFT: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """y = x * scale[n, c], plus shift[n, c] / P where SHIFT. Grid (N * P / BLOCK_P, C / BLOCK_C).

    Pixels share the first axis with images: the others end at 65,535 programs, which a large image would pass.
    """
    tiles = tl.cdiv(P, BLOCK_P)
    n = (tl.program_id(0) // tiles).to(tl.int64)
    p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (c[:, None] < C) & (p[None, :] < P)
    offsets = n * C * P + _offsets(c, p, C, P, CHANNELS_LAST)
    y = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    y *= tl.load(scale_ptr + n * C + c, mask=c < C, other=0.0)[:, None]
    if SHIFT:
        y += (tl.load(shift_ptr + n * C + c, mask=c < C, other=0.0) / P)[:, None]
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _matvec_kernel(
    v_ptr,
    w_ptr,
    bias_ptr,
    hidden_ptr,
    act_ptr,
    out_ptr,
    K,
    M,
    TRANSPOSED: tl.constexpr,
    BIAS: tl.constexpr,
    IN_ACT: tl.constexpr,
    OUT_GATE: tl.constexpr,
    OUT_ACT_GRAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out[n, m] = f(bias[m] + sum_k W[m, k] IN_ACT(v[n, k])). Grid (N, M / BLOCK_M).

    W is stored (M, K), or (K, M) where TRANSPOSED. f is OUT_GATE, or a product with OUT_ACT_GRAD'(hidden[n, m]);
    the latter also writes OUT_ACT_GRAD(hidden) to act: the weight gradient needs it. "" stands for none.
    """
    n = tl.program_id(0).to(tl.int64)
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    acc = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        v = tl.load(v_ptr + n * K + k, mask=k < K, other=0.0)
        if IN_ACT != "":
            v = act(v, IN_ACT)
        w_offsets = m[:, None] + k[None, :] * M if TRANSPOSED else m[:, None] * K + k[None, :]  # (BLOCK_M, BLOCK_K)
        w = tl.load(w_ptr + w_offsets, mask=(m[:, None] < M) & (k[None, :] < K), other=0.0)
        acc += w * v[None, :]
    out = tl.sum(acc, axis=1)
    if BIAS:
        out += tl.load(bias_ptr + m, mask=m < M, other=0.0)
    if OUT_GATE != "":
        out = gate(out, OUT_GATE)
    if OUT_ACT_GRAD != "":
        hidden = tl.load(hidden_ptr + n * M + m, mask=m < M, other=0.0)
        tl.store(act_ptr + n * M + m, act(hidden, OUT_ACT_GRAD), mask=m < M)
        out *= act_grad(hidden, OUT_ACT_GRAD)
    tl.store(out_ptr + n * M + m, out, mask=m < M)


def tile_for(channels: int, pixels: int, channels_last: bool) -> Tile:
    """The row of the table that a shape takes."""
    size, table = (channels, CHANNELS_LAST_TILES) if channels_last else (pixels, NCHW_TILES)
    return next(tile for limit, tile in table if limit is None or size <= limit)


def squeeze_excite_fwd(
    x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y (N, C, H, W) as x, and what the backward needs: mean (N, C), hidden (N, R), scale (N, C), all fp32."""
    channels, pixels, channels_last = _layout(x)
    n, rd = x.shape[0], w1.shape[0]
    w1, w2 = w1.contiguous(), w2.contiguous()
    y = torch.empty_like(x)
    mean = torch.empty((n, channels), dtype=torch.float32, device=x.device)
    hidden = torch.empty((n, rd), dtype=torch.float32, device=x.device)
    scale = torch.empty_like(mean)
    if n == 0:
        return y, mean, hidden, scale
    tile = tile_for(channels, pixels, channels_last)
    rows = triton.cdiv(channels, tile.rows)
    shape = {"C": channels, "P": pixels, "CHANNELS_LAST": channels_last, **_blocks(tile)}
    _pool_kernel[(n, rows)](x, mean, **shape)
    _matvec(mean, w1, hidden, bias=b1)
    _matvec(hidden, w2, scale, bias=b2, in_act=act, out_gate=gate)
    _scale_kernel[(n * triton.cdiv(pixels, tile.cols), rows)](x, scale, scale, y, SHIFT=False, **shape)
    return y, mean, hidden, scale


def squeeze_excite_bwd(
    dy: Tensor,
    x: Tensor,
    w1: Tensor,
    w2: Tensor,
    mean: Tensor,
    hidden: Tensor,
    scale: Tensor,
    act: str,
    gate: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dx as x, and dw1 (R, C), db1 (R), dw2 (C, R), db2 (C) in fp32. dy has the layout of x."""
    channels, pixels, channels_last = _layout(x)
    if dy.shape != x.shape or dy.dtype != x.dtype or _layout(dy) != _layout(x):
        raise ValueError(f"dy must have the shape, dtype and layout of x, {_describe(x)}; got {_describe(dy)}")
    n = x.shape[0]
    w1, w2 = w1.contiguous(), w2.contiguous()
    dx = torch.empty_like(x)
    dz, dmean = torch.empty_like(scale), torch.empty_like(mean)
    dh, hidden_act = torch.empty_like(hidden), torch.empty_like(hidden)
    if n > 0:
        tile = tile_for(channels, pixels, channels_last)
        rows = triton.cdiv(channels, tile.rows)
        shape = {"C": channels, "P": pixels, "CHANNELS_LAST": channels_last, **_blocks(tile)}
        _gate_grad_kernel[(n, rows)](dy, x, scale, dz, GATE=gate, **shape)
        _matvec(dz, w2, dh, transposed=True, hidden=hidden, hidden_act=hidden_act, out_act_grad=act)
        _matvec(dh, w1, dmean, transposed=True)
        _scale_kernel[(n * triton.cdiv(pixels, tile.cols), rows)](dy, scale, dmean, dx, SHIFT=True, **shape)
    # The sum over images is one small matrix product each: torch's, in a fixed order; zeros for an empty batch.
    return dx, dh.t() @ mean, dh.sum(0), dz.t() @ hidden_act, dz.sum(0)


def _layout(x: Tensor) -> tuple[int, int, bool]:
    """(channels, pixels, whether channels_last) of a dense x."""
    _, channels, height, width = x.shape
    channels_last = not x.is_contiguous()
    if channels_last and not x.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(f"x and dy must be dense, NCHW or channels_last; got {_describe(x)}")
    return channels, height * width, channels_last


def _describe(x: Tensor) -> str:
    return f"{x.dtype} {tuple(x.shape)} with strides {x.stride()}"


def _blocks(tile: Tile) -> dict[str, int | bool]:
    # Contraction to FMA is stated, not left to the default, which differs between Triton versions.
    return {"BLOCK_C": tile.rows, "BLOCK_P": tile.cols, "num_warps": tile.num_warps, "enable_fp_fusion": True}


def _matvec(
    v: Tensor,
    w: Tensor,
    out: Tensor,
    *,
    bias: Tensor | None = None,
    transposed: bool = False,
    hidden: Tensor | None = None,
    hidden_act: Tensor | None = None,
    in_act: str = "",
    out_gate: str = "",
    out_act_grad: str = "",
) -> None:
    n, k = v.shape
    m = out.shape[1]
    tile = MATVEC_TILE
    # `out` stands in for pointers that the variant does not read.
    _matvec_kernel[(n, triton.cdiv(m, tile.rows))](
        v,
        w,
        out if bias is None else bias,
        out if hidden is None else hidden,
        out if hidden_act is None else hidden_act,
        out,
        K=k,
        M=m,
        TRANSPOSED=transposed,
        BIAS=bias is not None,
        IN_ACT=in_act,
        OUT_GATE=out_gate,
        OUT_ACT_GRAD=out_act_grad,
        BLOCK_M=tile.rows,
        BLOCK_K=tile.cols,
        num_warps=tile.num_warps,
        enable_fp_fusion=True,
    )
