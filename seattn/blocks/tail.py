"""The end of a residual block, out_act(attn(bn(x)) + shortcut), in one op as far as its modules allow.

Shapes: B images, C channels, H x W pixels.

Whether an op may do a module's work in its place: not if the module would be missed.
A hook on the module would no longer fire, and a forward of the instance's own would no longer be called.
"""

from typing import NamedTuple

from timm.layers import BatchNormAct2d, DropPath
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from seattn.blocks.excitation import Reason, excitation_of
from seattn.layers._norm import batch_norm_of
from seattn.ops import efficient_channel_attn_add_act, squeeze_excite_add_act
from seattn.ops._tail.excitation import NO_EXCITATION, Excitation
from seattn.ops._tail.run import infer, leaves_norm_to_torch, run


def may_skip(*modules: nn.Module | None) -> bool:
    """True if nobody watches these modules or their children: no hooks, no forward set on an instance."""
    if _has_any_global_hook():
        return False
    # Asked in every call, so in one frame and without nn.Module's lookup.
    seen = list(modules)
    for module in seen:  # which grows by the children
        if module is None:
            continue
        own = module.__dict__
        if (
            own["_forward_hooks"]
            or own["_forward_pre_hooks"]
            or own["_backward_hooks"]
            or own["_backward_pre_hooks"]
            or "forward" in own
        ):
            return False
        if own["_modules"]:
            seen += own["_modules"].values()
    return True


class Plan(NamedTuple):
    """Which modules of a tail the op replaces: those named here; the others run by themselves, in timm's order."""

    norm: bool
    excitation: Excitation | None  # NO_EXCITATION: there is no attention; None: it runs by itself
    relu: bool
    add: bool  # False where stochastic depth stands between attention and addition


def plan_tail(bn: nn.Module | None, attn: nn.Module | None, act: nn.Module, drop_path: nn.Module | None) -> Plan:
    """What the op can replace in this mode of the modules."""
    e = excitation_of(attn) if attn is not None else NO_EXCITATION
    unwatched = may_skip(bn, attn, act)  # one question where nobody watches any, as nearly always
    if isinstance(e, Reason) or not (unwatched or may_skip(attn)):
        return Plan(False, None, False, False)
    add = _does_nothing(drop_path)
    norm = bn is not None and norm_reason(bn) is None and (unwatched or may_skip(bn))
    return Plan(norm, e, add and type(act) is nn.ReLU and (unwatched or may_skip(act)), add)


def norm_reason(bn: nn.Module) -> Reason | None:
    """Why no op computes this norm, or None if one does."""
    if type(bn) is nn.BatchNorm2d:
        return None
    if type(bn) is not BatchNormAct2d:
        return f"norm {type(bn).__name__}"
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
        quick: `is_cpu_inference` of x or of what it was made of.
    """
    plan = plan_tail(bn, attn, act, drop_path)
    e = plan.excitation
    norm, overwrite = None, False
    # An empty batch passes through nn.BatchNorm2d; the op refuses it.
    if bn is not None and plan.norm and x.shape[0] > 0 and (plan.add or attn is not None):
        assert isinstance(bn, nn.BatchNorm2d)
        assert e is not None
        training = bn.training or bn.running_mean is None
        if (quick and not training) or leaves_norm_to_torch(x, e, training):
            x, overwrite = bn(x), True  # here, not in the op: the memory of its input is free for the next step
            if e.kind == "none":
                return _call(act, x.add_(shortcut))
        else:
            norm = batch_norm_of(bn)
    elif bn is not None:
        x = bn(x)
    if e is None:
        x = x if attn is None else attn(x)  # none: a hook watches every module
    elif norm is not None or e.kind != "none":
        out_act = "relu" if plan.relu else "identity"
        if quick and norm is None:
            x = infer(x, shortcut if plan.add else None, e, out_act, overwrite=overwrite)
        else:
            x = run(x, shortcut if plan.add else None, e, norm, out_act, overwrite=overwrite)
        if plan.add:
            return x if plan.relu else _call(act, x)
    if drop_path is not None:
        x = drop_path(x)
    # Not in place, as timm: another norm's backward, or a hook, may have kept x.
    return _call(act, (x + shortcut).to(x.dtype))


def can_trace_tail(attn: nn.Module, drop_path: nn.Module | None) -> bool:
    """Whether `traced_tail` can stand for this attention: it has an op, and no stochastic depth follows in any mode."""
    e = excitation_of(attn)
    return not isinstance(e, Reason) and e.kind in ("se", "eca") and type(drop_path) in (type(None), nn.Identity)


def traced_tail(x: Tensor, shortcut: Tensor, *, attn: nn.Module, act: nn.Module) -> Tensor:
    """act(attn(x) + shortcut) as the same op that runs outside of torch.fx, one node of the graph."""
    e = excitation_of(attn)
    assert not isinstance(e, Reason)
    assert e.w1 is not None
    relu = type(act) is nn.ReLU
    out_act = "relu" if relu else "identity"
    if e.kind == "eca":
        x = efficient_channel_attn_add_act(x, shortcut, e.w1, gate=e.gate, out_act=out_act)
    else:
        assert e.w2 is not None
        x = squeeze_excite_add_act(x, shortcut, e.w1, e.b1, e.w2, e.b2, act=e.act, gate=e.gate, out_act=out_act)
    return x if relu or type(act) is nn.Identity else _call(act, x)


def _call(act: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = act(x)
    return y


def _does_nothing(drop_path: nn.Module | None) -> bool:
    if drop_path is None:
        return True
    if not may_skip(drop_path):
        return False
    if type(drop_path) is DropPath:
        return not drop_path.training or not drop_path.drop_prob
    return type(drop_path) is nn.Identity
