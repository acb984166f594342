"""ECA's convolution over neighbouring channels, its gradient by the input, and its gradient by the taps.

Shapes: N images, C channels, K taps (odd). v, out, dz, p (N, C), w (K), norm's terms (C): fp32, contiguous. No map.
"""

# ruff: noqa: N803  upper case marks sizes and compile-time constants, as Triton's own kernels do
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

import torch
import triton
import triton.language as tl
from torch import Tensor

from seattn_kernels._layout import Tile, launch_options, norm_args
from seattn_kernels._math import gate, norm_mean
from seattn_kernels.arguments import NO_NORM, Norm

CONV_TILE = Tile(16, 128, 4)  # images x channels


@triton.jit
def conv_kernel(
    v_ptr,
    w_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    out_ptr,
    N,
    C,
    K,
    eps,
    TRANSPOSED: tl.constexpr,
    OUT_GATE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """out[n, c] = OUT_GATE(sum_j w[j] norm(v[n, c + j - K // 2])), zeros outside; TRANSPOSED: of v[n, c - j + K // 2].

    Grid (N / BLOCK_N, C / BLOCK_C). fp32, taps in order. v comes once from memory, its shifted copies from cache.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    row = n[:, None].to(tl.int64) * C
    acc = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for j in range(0, K):
        shifted = c[None, :] - j + K // 2 if TRANSPOSED else c[None, :] + j - K // 2
        inside = (shifted >= 0) & (shifted < C)
        v = tl.load(v_ptr + row + shifted, mask=(n[:, None] < N) & inside, other=0.0)
        # Index 0 where outside, because the norm's terms end at C; then zero, because the padding is not normalised.
        v = norm_mean(v, weight_ptr, bias_ptr, mean_ptr, var_ptr, tl.where(inside, shifted, 0), C, eps)
        acc += tl.load(w_ptr + j) * tl.where(inside, v, 0.0)
    if OUT_GATE != "":
        acc = gate(acc, OUT_GATE)
    tl.store(out_ptr + row + c[None, :], acc, mask=(n[:, None] < N) & (c[None, :] < C))


@triton.jit
def conv_weight_grad_kernel(dz_ptr, p_ptr, partial_ptr, N, C, K, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr):
    """partial[b, j] = sum over c, and n of block b, of dz[n, c] p[n, c + j - K // 2]. Grid (N / BLOCK_N, K). fp32."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    j = tl.program_id(1)
    row = n[:, None].to(tl.int64) * C
    acc = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        shifted = c + j - K // 2
        mask = (n[:, None] < N) & (c[None, :] < C)
        inside = (shifted >= 0) & (shifted < C)
        dz = tl.load(dz_ptr + row + c[None, :], mask=mask, other=0.0)
        p = tl.load(p_ptr + row + shifted[None, :], mask=mask & inside[None, :], other=0.0)
        # Not 0 * dz where outside: a NaN or Inf in dz must not reach that tap.
        acc += tl.where(inside[None, :], dz * p, 0.0)
    tl.store(partial_ptr + tl.program_id(0).to(tl.int64) * K + j, tl.sum(tl.sum(acc, axis=1), axis=0))


def conv(
    v: Tensor, w: Tensor, out: Tensor, *, norm: Norm = NO_NORM, transposed: bool = False, out_gate: str = ""
) -> None:
    """Launch `conv_kernel` into out (N, C), from v (N, C). The norm is over C."""
    n, channels = v.shape
    tile = CONV_TILE
    conv_kernel[(triton.cdiv(n, tile.rows), triton.cdiv(channels, tile.cols))](
        v_ptr=v,
        w_ptr=w,
        out_ptr=out,
        N=n,
        C=channels,
        K=w.shape[0],
        TRANSPOSED=transposed,
        OUT_GATE=out_gate,
        BLOCK_N=tile.rows,
        BLOCK_C=tile.cols,
        **norm_args(norm),
        **launch_options(tile.num_warps),
    )


def conv_weight_grad(dz: Tensor, p: Tensor, taps: int) -> Tensor:
    """dw (k) from dz and p (N, C): a partial sum for each block of images, then torch's sum over the blocks."""
    n, channels = dz.shape
    tile = CONV_TILE
    partial = torch.empty((triton.cdiv(n, tile.rows), taps), dtype=torch.float32, device=dz.device)
    if n > 0:
        conv_weight_grad_kernel[(partial.shape[0], taps)](
            dz,
            p,
            partial,
            N=n,
            C=channels,
            K=taps,
            BLOCK_N=tile.rows,
            BLOCK_C=tile.cols,
            **launch_options(tile.num_warps),
        )
    return partial.sum(0)
