"""The tail of a residual block, out_act(attn(bn(x)) + shortcut): one op for as many of its modules as possible.

Shapes: B images, C channels, H x W pixels.
"""

from typing import Any, NamedTuple

from timm.layers import BatchNormAct2d, DropPath
from torch import Tensor, nn

from seattn.blocks.excitation import Reason, excitation_of
from seattn.blocks.folded.layers import fold_of, plain_type
from seattn.layers._norm import batch_norm_of
from seattn.layers._watched import may_skip
from seattn.ops import efficient_channel_attn_add_act, squeeze_excite_add_act
from seattn.ops._tail.excitation import NO_EXCITATION, Excitation
from seattn.ops._tail.norm import BatchNorm
from seattn.ops._tail.run import infer, leaves_norm_to_torch, run


class Plan(NamedTuple):
    """Which modules of a tail the op replaces. The others are called, in timm's order.

    `excitation` is NO_EXCITATION for a tail without attention, and None if the attention is called. `add` is False if
    stochastic depth comes between the attention and the addition.
    """

    norm: bool
    excitation: Excitation | None
    relu: bool
    add: bool


def plan_tail(bn: nn.Module | None, attn: nn.Module | None, act: nn.Module, drop_path: nn.Module | None) -> Plan:
    """The modules that the op can replace while they are in their current mode."""
    e = excitation_of(attn) if attn is not None else NO_EXCITATION
    unwatched = may_skip(bn, attn, act)  # nearly always; then the modules need not be asked one by one
    if isinstance(e, Reason) or not (unwatched or may_skip(attn)):
        return Plan(False, None, False, False)
    add = is_identity(drop_path)
    norm = bn is not None and norm_reason(bn) is None and (unwatched or may_skip(bn))
    return Plan(norm, e, add and type(act) is nn.ReLU and (unwatched or may_skip(act)), add)


def norm_reason(bn: nn.Module) -> Reason | None:
    """Why no op computes this norm, or None if one does."""
    kind = plain_type(bn)
    if kind is nn.BatchNorm2d:
        return None
    if kind is not BatchNormAct2d:
        return f"norm {kind.__name__}"
    for part in (bn.drop, bn.act):
        if type(part) is not nn.Identity:
            return f"norm with {type(part).__name__}"
    return None


def residual_tail(
    x: Tensor,
    shortcut: Tensor,
    *,
    bn: nn.Module | None,
    attn: nn.Module | None,
    act: nn.Module,
    drop_path: nn.Module | None = None,
    quick: bool = False,
) -> Tensor:
    """act(drop_path(attn(bn(x))) + shortcut) as the modules compute it, with the modules' parameters and statistics.

    Args:
        x, shortcut: (B, C, H, W) each.
        bn: the norm; None if x has been through it.
        attn, drop_path: None if the block has none.
        act: the activation after the addition.
        quick: `is_cpu_inference` of x, or of the block's input.
    """
    fold = fold_of(bn)
    is_normed = fold is not None and fold.usable()  # by the convolution before the tail
    plan = plan_tail(None if is_normed else bn, attn, act, drop_path)
    if plan.excitation is None:
        x = x if bn is None else bn(x)
        x = x if attn is None else attn(x)  # attn is None here only while a hook for all modules is set
        return _add(x, shortcut, act, drop_path)
    # An empty batch passes through nn.BatchNorm2d; the op refuses it.
    fusible = plan.norm and x.shape[0] > 0 and (plan.add or attn is not None)
    if fusible:
        x, norm = _apply_norm(x, bn, plan.excitation, quick)
    else:
        x, norm = (x if bn is None else bn(x)), None
    x_is_ours = is_normed or (fusible and norm is None)  # nothing else needs the values of x
    if attn is None and norm is None:
        return act(x.add_(shortcut)) if x_is_ours else _add(x, shortcut, act, drop_path)
    x = _attend(x, shortcut, plan, norm, quick=quick, overwrite=x_is_ours)
    if plan.add:
        return x if plan.relu else act(x)
    return _add(x, shortcut, act, drop_path)


def _apply_norm(x: Tensor, bn: Any, excitation: Excitation, quick: bool) -> tuple[Tensor, BatchNorm | None]:
    """bn(x), which frees the memory of x for the next step; or x and the norm's arguments, for an op to apply both."""
    training = bn.training or bn.running_mean is None
    if (quick and not training) or leaves_norm_to_torch(x, excitation, training):
        return bn(x), None
    return x, batch_norm_of(bn)


def _attend(x: Tensor, shortcut: Tensor, plan: Plan, norm: BatchNorm | None, *, quick: bool, overwrite: bool) -> Tensor:
    """Call the op with the norm, attention, addition and ReLU of the plan."""
    assert plan.excitation is not None
    out_act = "relu" if plan.relu else "identity"
    added = shortcut if plan.add else None
    if quick and norm is None:
        return infer(x, added, plan.excitation, out_act, overwrite=overwrite)
    return run(x, added, plan.excitation, norm, out_act, overwrite=overwrite)


def _add(x: Tensor, shortcut: Tensor, act: nn.Module, drop_path: nn.Module | None) -> Tensor:
    """act(drop_path(x) + shortcut), not in place: the backward of a norm, or a hook, may hold x."""
    if drop_path is not None:
        x = drop_path(x)
    return act((x + shortcut).to(x.dtype))


def can_trace_tail(attn: nn.Module, drop_path: nn.Module | None) -> bool:
    """Whether `traced_tail` computes this attention: there is an op, and no stochastic depth follows in any mode."""
    e = excitation_of(attn)
    return not isinstance(e, Reason) and e.kind in ("se", "eca") and type(drop_path) in (type(None), nn.Identity)


def traced_tail(x: Tensor, shortcut: Tensor, *, attn: nn.Module, act: nn.Module) -> Tensor:
    """act(attn(x) + shortcut) as the same op that runs outside of torch.fx, one node of the graph."""
    e = excitation_of(attn, traced=True)
    assert not isinstance(e, Reason)
    assert e.w1 is not None
    relu = type(act) is nn.ReLU
    out_act = "relu" if relu else "identity"
    if e.kind == "eca":
        x = efficient_channel_attn_add_act(x, shortcut, e.w1, gate=e.gate, out_act=out_act)
    else:
        assert e.w2 is not None
        x = squeeze_excite_add_act(x, shortcut, e.w1, e.b1, e.w2, e.b2, act=e.act, gate=e.gate, out_act=out_act)
    return x if relu or type(act) is nn.Identity else act(x)


def is_identity(drop_path: nn.Module | None) -> bool:
    """Whether stochastic depth does nothing in its current mode."""
    if drop_path is None:
        return True
    if not may_skip(drop_path):
        return False
    if type(drop_path) is DropPath:
        return not drop_path.training or not drop_path.drop_prob
    return type(drop_path) is nn.Identity
