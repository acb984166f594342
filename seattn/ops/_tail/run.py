"""Channel attention, alone or as the tail of a residual block: contract, reference and choice of all such ops.

The public ops are named after the paper's parts and stand in files of their own; each is one call of `run`.
Shapes: B images, C channels, H x W pixels.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from seattn.ops._checks import check_map, check_out_act, check_shortcut
from seattn.ops._kernel import choose, too_large
from seattn.ops._operator import no_autocast, wants_grad
from seattn.ops._tail.excitation import Excitation, check_excitation, excite_reference
from seattn.ops._tail.in_torch import attn_tail_inference, compute_dtype
from seattn.ops._tail.norm import BatchNorm, batch_norm, batch_norm_reference, check_batch_norm, update_running
from seattn.ops._tail.operator import attn_tail

P = ParamSpec("P")


def fx_leaf(op: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """torch.fx then records a call of `op` as one node: which implementation runs is chosen when the graph runs."""

    @functools.wraps(op)
    def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        if has_torch_function(args):
            result: Tensor = handle_torch_function(call, args, *args, **kwargs)
            return result
        return op(*args, **kwargs)

    return call


def run(
    x: Tensor,
    shortcut: Tensor | None,
    e: Excitation,
    norm: BatchNorm | None,
    out_act: str,
    *,
    overwrite: bool = False,
) -> Tensor:
    """out_act(excite(mean(norm(x))) * norm(x) + shortcut) by the implementation that `set_kernels` says.

    With `overwrite` nobody needs x any more: where no gradient is wanted, the result may take its memory.

    Raises:
        ValueError: for shapes that do not fit, mixed devices, a dtype that is not floating point or an unknown name.
        RuntimeError: if the choice is "triton" or "torch" and that one cannot run.
    """
    check_map(x)
    if shortcut is not None:
        check_shortcut(shortcut, x)
    check_excitation(e, x)
    check_out_act(out_act)
    if norm is not None:
        check_batch_norm(norm, x)
    implementation = choose(x, too_large)
    if implementation == "reference":
        return reference(x, shortcut, e, norm, out_act)
    shortcut = _to(shortcut, x.dtype)
    if norm is not None and implementation == "torch" and not _norm_inside_pays(x, e, norm.training):
        x, norm, overwrite = batch_norm(x, norm), None, True
        if e.kind == "none":
            x = x if shortcut is None else x.add_(shortcut)
            return x.relu_() if out_act == "relu" else x
    if implementation == "torch" and norm is None and e.kind != "none" and not wants_grad(x, shortcut, *e):
        e = _in_dtype(e, compute_dtype(x))
        with no_autocast(x):
            return attn_tail_inference(x, shortcut, e, out_act, overwrite=overwrite)
    return _run(implementation, x, shortcut, e, norm, out_act)


def infer(x: Tensor, shortcut: Tensor | None, e: Excitation, out_act: str, *, overwrite: bool = False) -> Tensor:
    """`run` where `is_cpu_inference(x)`, without its checks: for modules, whose parts fit one another."""
    return attn_tail_inference(x, _to(shortcut, x.dtype), _in_dtype(e, x.dtype), out_act, overwrite=overwrite)


def leaves_norm_to_torch(x: Tensor, e: Excitation, training: bool) -> bool:
    """Whether `run` would give a norm of x to torch's own operator: then the caller may, and drop x before the rest."""
    return choose(x, too_large) == "torch" and not _norm_inside_pays(x, e, training)


def _norm_inside_pays(x: Tensor, e: Excitation, training: bool) -> bool:
    """Whether the torch functions should do the norm as well, not leave it to torch's own operator.

    Not without a gate, where that operator and two steps in place are the shortest way; not with given statistics, for
    which it makes one pass; not in 16 bit: a norm by hand loses digits between its steps, or in fp32 costs memory.
    """
    return e.kind != "none" and training and x.element_size() >= 4


def _run(
    implementation: str, x: Tensor, shortcut: Tensor | None, e: Excitation, norm: BatchNorm | None, out_act: str
) -> Tensor:
    dtype = compute_dtype(x)
    weight = bias = given_mean = given_var = None
    kind_of_norm, eps = "none", 0.0
    if norm is not None:
        weight, bias, eps = _to(norm.weight, dtype), _to(norm.bias, dtype), norm.eps
        kind_of_norm = "batch" if norm.training else "frozen"
        if not norm.training:
            given_mean, given_var = _to(norm.running_mean, dtype), _to(norm.running_var, dtype)
    e = _in_dtype(e, dtype)
    y, _, mean, var = attn_tail(
        implementation,
        *(x, shortcut, weight, bias, given_mean, given_var, e.w1, e.b1, e.w2, e.b2),
        *(e.kind, e.act, e.gate, kind_of_norm, eps, out_act),
    )
    if norm is not None and norm.training:
        update_running(norm, mean, var, x.shape[0] * x.shape[2] * x.shape[3])
    return y


def reference(x: Tensor, shortcut: Tensor | None, e: Excitation, norm: BatchNorm | None, out_act: str) -> Tensor:
    """The definition, in fp32 (float64 for float64) with one rounding at the end, under autocast too."""
    dtype = compute_dtype(x)
    wide = x.to(dtype) if norm is None else batch_norm_reference(x, norm, dtype)
    if e.kind != "none":
        scale = excite_reference(wide.mean((2, 3)), e)  # (B, C)
        wide = wide * scale[:, :, None, None]
    y = wide if shortcut is None else wide + shortcut
    return (y.relu() if out_act == "relu" else y).to(x.dtype)


def gate_reference(x: Tensor, e: Excitation) -> Tensor:
    """The factor of every channel, (B, C) in fp32 (float64 for a float64 x)."""
    return excite_reference(x.to(compute_dtype(x)).mean((2, 3)), e)


def _in_dtype(e: Excitation, dtype: torch.dtype) -> Excitation:
    if {w.dtype for w in (e.w1, e.b1, e.w2, e.b2) if w is not None} <= {dtype}:
        return e
    return e._replace(w1=_to(e.w1, dtype), b1=_to(e.b1, dtype), w2=_to(e.w2, dtype), b2=_to(e.b2, dtype))


def _to(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return t if t is None or t.dtype == dtype else t.to(dtype)
