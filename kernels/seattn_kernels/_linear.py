"""A small matrix times the vectors of 16 images at once: the two layers of squeeze-excite, forward and backward.

Shapes: N images, K inputs, M outputs; no map. All is fp32, products and sums too.
"""

# ruff: noqa: N803  upper case marks sizes and compile-time constants, as Triton's own kernels do
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from seattn_kernels._layout import launch_options, norm_args
from seattn_kernels._math import act, act_grad, gate, norm_mean
from seattn_kernels.arguments import NO_NORM, Norm


class LinearTile(NamedTuple):
    """Images x outputs, and how many inputs are read at a time."""

    images: int
    outputs: int
    inputs: int
    num_warps: int


# (limit on the outputs, tile): the first row whose limit holds. A side of tl.dot is at least 16.
LINEAR_TILES: tuple[tuple[int | None, LinearTile], ...] = (
    (16, LinearTile(16, 16, 64, 4)),
    (None, LinearTile(16, 32, 64, 4)),
)


@triton.jit
def linear_kernel(
    v_ptr,
    w_ptr,
    b_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    var_ptr,
    hidden_ptr,
    act_ptr,
    out_ptr,
    N,
    K,
    M,
    eps,
    TRANSPOSED: tl.constexpr,
    IN_ACT: tl.constexpr,
    OUT_GATE: tl.constexpr,
    OUT_ACT_GRAD: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out[n, m] = f(b[m] + sum_k W[m, k] IN_ACT(norm(v[n, k]))). Grid (N / BLOCK_N, M / BLOCK_M).

    v (N, K), out, hidden, act (N, M), W (M, K) or, where TRANSPOSED, (K, M); norm's terms (K), b (M): fp32, contiguous.
    f is OUT_GATE, or a product with OUT_ACT_GRAD'(hidden); the latter also writes OUT_ACT_GRAD(hidden) to act: the
    weight gradient needs it. "" means no such step, as a None pointer. Exact fp32 products, no tf32. No map.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    n_long = n[:, None].to(tl.int64)
    acc = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        v = tl.load(v_ptr + n_long * K + k[None, :], mask=(n[:, None] < N) & (k[None, :] < K), other=0.0)
        v = norm_mean(v, weight_ptr, bias_ptr, mean_ptr, var_ptr, k[None, :], K, eps)
        if IN_ACT != "":
            v = act(v, IN_ACT)
        w_offsets = k[:, None] * M + m[None, :] if TRANSPOSED else m[None, :] * K + k[:, None]  # (BLOCK_K, BLOCK_M)
        w = tl.load(w_ptr + w_offsets, mask=(k[:, None] < K) & (m[None, :] < M), other=0.0)
        acc = tl.dot(v, w, acc, input_precision="ieee")
    mask = (n[:, None] < N) & (m[None, :] < M)
    offsets = n_long * M + m[None, :]
    if b_ptr is not None:
        acc += tl.load(b_ptr + m, mask=m < M, other=0.0)[None, :]
    if OUT_GATE != "":
        acc = gate(acc, OUT_GATE)
    if OUT_ACT_GRAD != "":
        hidden = tl.load(hidden_ptr + offsets, mask=mask, other=0.0)
        tl.store(act_ptr + offsets, act(hidden, OUT_ACT_GRAD), mask=mask)
        acc = act_grad(acc, hidden, OUT_ACT_GRAD)
    tl.store(out_ptr + offsets, acc, mask=mask)


def linear_tile(outputs: int) -> LinearTile:
    """The first row of the table whose limit holds."""
    return next(tile for limit, tile in LINEAR_TILES if limit is None or outputs <= limit)


def linear(
    v: Tensor,
    w: Tensor,
    out: Tensor,
    *,
    norm: Norm = NO_NORM,
    b: Tensor | None = None,
    transposed: bool = False,
    hidden: Tensor | None = None,
    hidden_act: Tensor | None = None,
    in_act: str = "",
    out_gate: str = "",
    out_act_grad: str = "",
) -> None:
    """Launch `linear_kernel` into out (N, M), from v (N, K). The norm is over K."""
    n, k = v.shape
    m = out.shape[1]
    tile = linear_tile(m)
    linear_kernel[(triton.cdiv(n, tile.images), triton.cdiv(m, tile.outputs))](
        v_ptr=v,
        w_ptr=w,
        b_ptr=b,
        hidden_ptr=hidden,
        act_ptr=hidden_act,
        out_ptr=out,
        N=n,
        K=k,
        M=m,
        TRANSPOSED=transposed,
        IN_ACT=in_act,
        OUT_GATE=out_gate,
        OUT_ACT_GRAD=out_act_grad,
        BLOCK_N=tile.images,
        BLOCK_M=tile.outputs,
        BLOCK_K=tile.inputs,
        **norm_args(norm),
        **launch_options(tile.num_warps),
    )
