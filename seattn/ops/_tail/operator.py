"""torch.ops.seattn.attn_tail_fwd and _bwd: one operator for every channel attention, alone or as a block's tail.

    normed = a0 x + b0                       a0 = weight rstd, b0 = bias - a0 mean; norm "none": 1 and 0, "frozen": the
                                             given mean and variance, "batch": those of x
    scale  = excite(mean_p normed)           by the kind of excitation, see seattn_kernels/arguments.py
    y      = out_act(scale * normed + shortcut)
Backward, with g = dy where y > 0, S1 = sum_p g, S2 = sum_p g (x - mean), M = N P, m = mean_p x:
    dscale = a0 S2 + bias S1;  dp from dscale through the excitation;  dshortcut = g
    dbias  = sum_n (scale S1 + dp);  dweight = rstd sum_n (scale S2 + dp (m - mean))
    dx     = a0 scale g + a0 dp / P - [batch: a0 rstd dweight / M (x - mean) + a0 dbias / M]
Batch norm must read x once for its statistics. Statistics of each image contain the squeeze of the normalised map, so
SE inside the norm needs no pass of its own. Shapes: N images, C channels, P = H W pixels, R hidden channels;
statistics, gates, weights and biases are fp32.

The implementations take an excitation and a norm as dataclasses. torch.library knows only tensors, numbers and strings:
`flatten`, `_flat_fwd` and `_flat_bwd` are the one place that takes the dataclasses apart and puts them together.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seattn.ops._maps import compute_dtype
from seattn.ops._operator import Operator, Outputs, define, dense_like
from seattn.ops._tail import in_torch
from seattn.ops._tail.excitation import EXCITATIONS, Excitation
from seattn.ops._tail.in_torch import BwdOut, FwdOut
from seattn_kernels.arguments import Norm, Saved


def flatten(x: Tensor, shortcut: Tensor | None, e: Excitation, norm: Norm, out_act: str) -> tuple[Any, ...]:
    """The arguments of `torch.ops.seattn.attn_tail_fwd`."""
    tensors = (x, shortcut, norm.weight, norm.bias, norm.mean, norm.var, e.w1, e.b1, e.w2, e.b2)
    return *tensors, e.kind, e.act, e.gate, norm.kind, norm.eps, out_act


def _flat_fwd(fn: Callable[[Tensor, Tensor | None, Excitation, Norm, str], FwdOut]) -> Callable[..., FwdOut]:
    """`fn` with the arguments and, by its annotations, the schema of `torch.ops.seattn.attn_tail_fwd`."""

    def flat(
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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        excitation = EXCITATIONS[kind](w1=w1, b1=b1, w2=w2, b2=b2, act=act, gate=gate)
        return fn(x, shortcut, excitation, Norm(norm, weight, bias, mean, var, eps), out_act)

    return flat


def _flat_bwd(
    fn: Callable[[Tensor, Tensor, Tensor | None, Excitation, Norm, Saved, str], BwdOut],
) -> Callable[..., BwdOut]:
    """`fn` with the arguments and, by its annotations, the schema of `torch.ops.seattn.attn_tail_bwd`."""

    def flat(
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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        excitation = EXCITATIONS[kind](w1=w1, w2=w2, act=act, gate=gate)
        saved = Saved(squeeze, hidden, scale)
        return fn(dy, x, y, excitation, Norm(norm, weight, bias, mean, var, eps), saved, out_act)

    return flat


def _save(inputs: tuple[Any, ...], outputs: Outputs) -> tuple[tuple[Tensor | None, ...], tuple[Any, ...]]:
    x, _, weight, bias, given_mean, given_var, w1, _, w2, _, *constants = inputs
    y, squeeze, mean, var, hidden, scale = outputs
    if constants[3] == "frozen":
        mean, var = given_mean.clone(), given_var.clone()  # a later call may move the running statistics
    masked_by = None if constants[-1] == "identity" else y
    return (x, masked_by, weight, bias, mean, var, w1, w2, squeeze, hidden, scale), tuple(constants)


def _grads(dy: Tensor, constants: tuple[Any, ...], results: Outputs) -> tuple[Tensor | None, ...]:
    dx, g, dweight, dbias, *weight_grads = results
    return dx, dy if constants[-1] == "identity" else g, dweight, dbias, None, None, *weight_grads


def _fwd_triton(x: Tensor, shortcut: Tensor | None, excitation: Excitation, norm: Norm, out_act: str) -> FwdOut:
    from seattn_kernels import attn_tail as kernels  # needs triton, which `import seattn` must not

    x = dense_like(x, x)
    shortcut = None if shortcut is None else dense_like(shortcut, x)
    return kernels.attn_tail_fwd(x, shortcut, excitation, norm, out_act)


def _bwd_triton(
    dy: Tensor, x: Tensor, y: Tensor | None, excitation: Excitation, norm: Norm, saved: Saved, out_act: str
) -> BwdOut:
    from seattn_kernels import attn_tail as kernels

    x = dense_like(x, x)
    y = None if y is None else dense_like(y, x)
    return kernels.attn_tail_bwd(dense_like(dy, x), x, y, excitation, norm, saved)


def _fwd_fake(x: Tensor, shortcut: Tensor | None, excitation: Excitation, norm: Norm, out_act: str) -> FwdOut:
    small = functools.partial(x.new_empty, dtype=compute_dtype(x))
    images, channels = x.shape[:2]
    gates = (0,) if excitation.kind == "none" else (images, channels)
    hidden = (images, excitation.w1.shape[0]) if excitation.kind == "se" and excitation.w1 is not None else (0,)
    statistics = channels if norm.kind == "batch" else 0
    y = torch.empty_like(dense_like(x, x))
    return y, small(gates), small(statistics), small(statistics), small(hidden), small(gates)


def _bwd_fake(
    dy: Tensor, x: Tensor, y: Tensor | None, excitation: Excitation, norm: Norm, saved: Saved, out_act: str
) -> BwdOut:
    small = functools.partial(x.new_empty, dtype=compute_dtype(x))
    dx = torch.empty_like(dense_like(x, x))
    g = x.new_empty(0) if y is None else torch.empty_like(dx)
    w1, w2 = ((0,) if w is None else tuple(w.shape) for w in (excitation.w1, excitation.w2))
    b1 = w1[0] if excitation.kind in ("se", "ese") else 0
    statistics = 0 if norm.kind == "none" else x.shape[1]
    return dx, g, small(statistics), small(statistics), small(w1), small(b1), small(w2), small(w2[0])


OPERATOR = Operator(
    name="attn_tail",
    fwd={"torch": _flat_fwd(in_torch.attn_tail_fwd), "triton": _flat_fwd(_fwd_triton)},
    bwd={"torch": _flat_bwd(in_torch.attn_tail_bwd), "triton": _flat_bwd(_bwd_triton)},
    fwd_fake=_flat_fwd(_fwd_fake),
    bwd_fake=_flat_bwd(_bwd_fake),
    save=_save,
    grads=_grads,
    shown=4,
)
attn_tail = define(OPERATOR)
