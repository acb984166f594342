"""torch.ops.seattn.attn_tail_fwd and _bwd: one operator for every channel attention, alone or as a block's tail.

    normed = a0 x + b0                       a0 = weight rstd, b0 = bias - a0 mean; norm "none": 1 and 0, "frozen": the
                                             given mean and variance, "batch": those of x
    scale  = excite(mean_p normed)           "none": 1, "se", "ese", "eca" as in seattn/ops/_tail/excitation.py
    y      = out_act(scale * normed + shortcut)
Backward, with g = dy where y > 0, S1 = sum_p g, S2 = sum_p g (x - mean), M = N P, m = mean_p x:
    dscale = a0 S2 + bias S1;  dp from dscale through the excitation;  dshortcut = g
    dbias  = sum_n (scale S1 + dp);  dweight = rstd sum_n (scale S2 + dp (m - mean))
    dx     = a0 scale g + a0 dp / P - [batch: a0 rstd dweight / M (x - mean) + a0 dbias / M]
Batch norm must read x once for its statistics; taken for each image, they hold the squeeze of the normalised map, so SE
inside costs no pass of its own. Shapes: N images, C channels, P = H W pixels, R hidden channels; statistics, gates,
weights and biases fp32.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from seattn.ops._operator import Operator, Outputs, define, dense_like
from seattn.ops._tail import in_torch as in_torch

_STATIC = "str kind, str act, str gate, str norm, float eps, str out_act"


def _fwd_triton(*inputs: Any) -> Outputs:
    from seattn_kernels import attn_tail as kernels  # needs triton, which `import seattn` must not

    x, shortcut, *rest = inputs
    x = dense_like(x, x)
    return kernels.attn_tail_fwd(x, None if shortcut is None else dense_like(shortcut, x), *rest)


def _bwd_triton(*inputs: Any) -> Outputs:
    from seattn_kernels import attn_tail as kernels

    dy, x, y, *rest = inputs
    x = dense_like(x, x)
    return kernels.attn_tail_bwd(dense_like(dy, x), x, None if y is None else dense_like(y, x), *rest)


def _fwd_fake(
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
) -> Outputs:
    images, channels = x.shape[:2]
    small = functools.partial(x.new_empty, dtype=in_torch.compute_dtype(x))
    gates = (images, channels) if kind != "none" else (0,)
    stats = channels if norm != "none" else 0
    hidden = (images, w1.shape[0]) if kind == "se" and w1 is not None else (0,)
    return torch.empty_like(dense_like(x, x)), small(gates), small(stats), small(stats), small(hidden), small(gates)


def _bwd_fake(
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
) -> Outputs:
    small = functools.partial(x.new_empty, dtype=in_torch.compute_dtype(x))
    like = torch.empty_like(dense_like(x, x))
    w1_size = (0,) if w1 is None else tuple(w1.shape)
    b1_size = w1_size[0] if kind in ("se", "ese") else 0
    w2_size = (0,) if w2 is None else tuple(w2.shape)
    return (
        like,
        x.new_empty(0) if y is None else torch.empty_like(like),
        torch.empty_like(mean),
        torch.empty_like(var),
        *(small(size) for size in (w1_size, b1_size, w2_size, w2_size[0])),
    )


def _keep(inputs: tuple[Any, ...], outputs: Outputs) -> tuple[tuple[Tensor | None, ...], tuple[Any, ...]]:
    x, _, weight, bias, _, _, w1, _, w2, _, *static = inputs
    y, squeeze, mean, var, hidden, scale = outputs
    masked = static[-1] != "identity"
    return (x, y if masked else None, weight, bias, mean, var, w1, w2, squeeze, hidden, scale), tuple(static)


def _grads(dy: Tensor, inputs: tuple[bool, ...], constants: tuple[Any, ...], results: Outputs) -> tuple[Any, ...]:
    dx, g, *params = results
    kept = [dx, dy if constants[-1] == "identity" else g, *params[:2], None, None, *params[2:]]
    return *(grad if needed else None for grad, needed in zip(kept, inputs, strict=False)), *([None] * 6)


OPERATOR = Operator(
    name="attn_tail",
    fwd_schema=(
        "(Tensor x, Tensor? shortcut, Tensor? weight, Tensor? bias, Tensor? mean, Tensor? var, Tensor? w1, "
        f"Tensor? b1, Tensor? w2, Tensor? b2, {_STATIC}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    bwd_schema=(
        "(Tensor dy, Tensor x, Tensor? y, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, Tensor? w1, "
        f"Tensor? w2, Tensor squeeze, Tensor hidden, Tensor scale, {_STATIC}) -> "
        "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    fwd={"torch": in_torch.attn_tail_fwd, "triton": _fwd_triton},
    bwd={"torch": in_torch.attn_tail_bwd, "triton": _bwd_triton},
    fwd_fake=_fwd_fake,
    bwd_fake=_bwd_fake,
    keep=_keep,
    grads=_grads,
    shown=4,
)
attn_tail = define(OPERATOR)
