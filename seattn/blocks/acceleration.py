"""seattn.accelerate(model): ops of this package replace steps of a timm or torchvision model.

Each module that an op can compute gets a class with another `forward` and the same parameters. Nothing is copied: state
dicts, optimisers, EMA copies and timm's methods still work. A report lists the other modules with the reasons. With
`fold=True` the batch norms are computed by the convolutions before them, with copies of their weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from timm import layers as timm_layers
from timm.layers.cbam import LightCbamModule
from torch import nn

from seattn.blocks.attended.base import Attended
from seattn.blocks.excitation import Reason, excitation_of, is_known, known_types
from seattn.blocks.folded.layers import plain_type, put_in, take_out
from seattn.blocks.folded.sites import find_sites
from seattn.blocks.fused.base import Fused, fused_class, fused_types, plain_class
from seattn.layers import get_attn, list_attn

Model = TypeVar("Model", bound=nn.Module)

_MARK = "_seattn_accelerated"  # an attribute of the instances to which `restore` gives their class back
_FOLDED = "_seattn_folds"  # an attribute of a model for which `fold=True` was asked
# timm's attention for which there is no op: the report names these modules too.
_WITHOUT_OP = (
    LightCbamModule,
    timm_layers.GatherExcite,
    timm_layers.GlobalContext,
    timm_layers.SelectiveKernel,
    timm_layers.SplitAttn,
)


@dataclass(frozen=True)
class Row:
    """One module: its name in the model, its type, and the op that runs for it or the reason why no op does."""

    name: str
    kind: str
    note: str


@dataclass(frozen=True)
class Report:
    """Which modules run as one op, which norms are folded, and which are left alone; `str()` gives a table."""

    replaced: tuple[Row, ...]
    left: tuple[Row, ...]
    folded: tuple[Row, ...] = ()

    def __str__(self) -> str:
        rows = [*self.replaced, *self.folded, *self.left]
        wide = [max((len(getattr(row, field)) for row in rows), default=0) for field in ("name", "kind")]
        lines = []
        folded = [("folded for inference", self.folded)] if self.folded else []
        for title, part in [("runs as one op", self.replaced), *folded, ("left alone", self.left)]:
            lines.append(f"{title}: {len(part)}")
            lines += [f"  {row.name:<{wide[0]}}  {row.kind:<{wide[1]}}  {row.note}" for row in part]
        return "\n".join(lines)


def accelerate(model: Model, *, fold: bool = False, verbose: bool = True) -> Model:
    """Let the attention modules and residual tails of `model` run as ops of this package, in place.

    Outputs, gradients, running statistics and state dict stay the same up to rounding. Calling it again is harmless. A
    pickle of the whole model needs seattn to load; a state dict does not. The ops are differentiable once: for second
    derivatives choose `set_kernels("reference")`.

    Args:
        model: any module; it is changed itself, not a copy.
        fold: also fold batch norms into the convolutions before them, with the activations after them, for inference,
            torch.export and ONNX. A norm in training mode is not folded, and the report says so. The state dict stays
            the same. A folded module runs unfolded in training mode, while torch records gradients (outside of
            `torch.no_grad()` and `torch.inference_mode()`), and while it has a hook. A changed weight is noticed, with
            two exceptions after which `accelerate` must be called again: a change through `.data`, which torch does not
            count; and in a graph of torch.compile, every change but `load_state_dict`. The folded weights need memory
            in addition to the model's own.
        verbose: print `acceleration_report(model)`.

    Returns:
        `model` itself.
    """
    for _, module, target, reason in _candidates(model):
        if reason is None and not isinstance(module, Fused):
            module.__class__ = target
            setattr(module, _MARK, True)
    if fold:
        model.__dict__[_FOLDED] = True
        for site in find_sites(model, make=True):
            if site.fold is not None:
                site.fold.refresh()
                put_in(site.fold)
    if verbose:
        print(acceleration_report(model))
    return model


def acceleration_report(model: nn.Module) -> Report:
    """Which modules of `model` run as one op now, and which attention modules and blocks do not, and why."""
    replaced: list[Row] = []
    left: list[Row] = []
    for name, module, target, reason in _candidates(model):
        kind = (plain_class(type(module)) or type(module)).__name__
        if isinstance(module, Fused) and reason is None:
            replaced.append(Row(name, kind, target._label(module)))
        else:
            left.append(Row(name, kind, reason or "an op can compute it: call seattn.accelerate"))
    folded: list[Row] = []
    for site in find_sites(model, make=False) if _FOLDED in model.__dict__ else []:
        kind = plain_type(site.norm).__name__
        if site.fold is None:
            left.append(Row(site.name, kind, f"not folded: {site.reason}"))
        else:
            steps = ["convolution", kind] + ([] if site.fold.act_name == "identity" else [site.fold.act_name])
            folded.append(Row(site.name, kind, " + ".join(steps)))
    return Report(tuple(replaced), tuple(left), tuple(folded))


def restore(model: Model) -> Model:
    """Give every module that `accelerate` changed its own class back, in place; returns `model`.

    Models that are built fused stay as they are.
    """
    model.__dict__.pop(_FOLDED, None)
    for module in model.modules():
        take_out(module)
        kind = plain_class(type(module))
        if kind is not None and module.__dict__.pop(_MARK, False):
            module.__class__ = kind
    return model


def _candidates(model: nn.Module) -> Iterator[tuple[str, nn.Module, Any, Reason | None]]:
    """Attention modules and residual blocks: name, module, fused class, and why the module is left alone, or None."""
    covered: set[int] = set()  # attention inside a block with an op is reported with the block
    for name, module in model.named_modules():
        if id(module) in covered:
            continue
        target = fused_class(plain_class(type(module)) or type(module))
        reason = _why_not(module, target)
        if reason is None and target is not None:
            whole = target._covered(module)
            covered |= set() if whole is None else {id(part) for part in whole.modules()}
        if reason is not None or target is not None:
            yield name, module, target, reason


def _why_not(module: nn.Module, target: type[Fused] | None) -> Reason | None:
    """Why the module is left alone; None for a module without attention too."""
    if target is not None:
        return "its forward was set on the instance" if "forward" in module.__dict__ else target._why_not(module)
    kind = type(module)
    if isinstance(module, Attended):
        return f"attention of seattn, placement {module.attn_placement}: it calls its ops itself"
    if kind in map(get_attn, list_attn()):
        return "a layer of seattn: it calls its op itself"
    if is_known(kind):
        reason = excitation_of(module)
        assert isinstance(reason, Reason)
        return reason
    if kind in _WITHOUT_OP:
        return "no op computes it"
    for known in (*fused_types(), *known_types(), *_WITHOUT_OP):
        if isinstance(module, known):
            return f"subclass of {known.__name__}"
    return None
