"""The batch norms of a model that can be folded, and the reasons why others cannot; found in the model's graph.

torch.fx traces the model. Where it cannot, it traces the children one by one, and a norm cannot be folded into a
convolution of another child.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from timm.layers.cbam import CbamModule
from timm.models import get_notrace_functions, get_notrace_modules
from torch import fx, nn

from seattn.blocks.excitation import Reason, act_name, is_known
from seattn.blocks.folded.fold import Fold, Place
from seattn.blocks.folded.layers import FOLDED, Folded, fold_of, plain_type
from seattn.blocks.fused.layers import FusedCbamModule
from seattn.layers import get_attn, list_attn
from seattn.layers._watched import may_skip, reads_weights

_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


@dataclass(frozen=True)
class Site:
    """A batch norm: its name in the model, and its fold, or why it has none."""

    name: str
    norm: nn.Module
    fold: Fold | None
    reason: Reason


def find_sites(model: nn.Module, *, make: bool) -> list[Site]:
    """All batch norms of the model, in the order of its modules.

    Args:
        make: make a fold for each norm that has none and can have one.
    """
    chains, reasons = _read(model)
    inside = {id(part) for module in model.modules() if _is_attention(type(module)) for part in module.modules()}
    sites = []
    for name, norm in model.named_modules():
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        fold, reason = fold_of(norm), None
        if fold is None:
            chain = chains.get(id(norm))
            if chain is not None:
                reason = _why_not(chain.conv.module, norm)
            elif id(norm) in inside:
                reason = "it belongs to an attention layer"
            else:
                reason = reasons.get(id(norm), "torch.fx cannot follow the forward that calls it")
            if chain is not None and reason is None and make:
                fold = _make(chain)
        sites.append(Site(name, norm, fold, reason or "it can be folded: seattn.accelerate(model, fold=True)"))
    return sites


@dataclass(frozen=True)
class _Chain:
    """A convolution, the norm after it, and the activation after that or None; nothing else takes their outputs."""

    conv: Place
    norm: Place
    act: Place | None


class _Tracer(fx.Tracer):
    """Keeps convolutions, norms, activations and attention as single nodes, and what timm keeps so."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self._whole = tuple(get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        kind = type(m)
        # torch's own rule keeps classes of torch.nn only: a BatchNormAct2d is timm's, a folded class is ours.
        if isinstance(m, Folded | nn.BatchNorm2d) or kind in self._whole or _is_attention(kind):
            return True
        return bool(super().is_leaf_module(m, module_qualified_name))


def _is_attention(kind: type[nn.Module]) -> bool:
    return kind in (CbamModule, FusedCbamModule, *map(get_attn, list_attn())) or is_known(kind)


def _graphs(module: nn.Module, prefix: str) -> Iterator[tuple[str, fx.Graph]]:
    """The graph of the module, or those of its children if torch.fx cannot follow the module itself."""
    if not any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        return
    try:
        graph = _Tracer().trace(module)
    except Exception:  # the module's own code may raise any exception for a Proxy
        for name, child in module.named_children():
            yield from _graphs(child, f"{prefix}{name}.")
        return
    yield prefix, graph


def _read(model: nn.Module) -> tuple[dict[int, _Chain], dict[int, Reason]]:
    """The chains of the model, and why the other norms have none; both by the `id` of the norm."""
    calls: dict[int, list[fx.Node]] = {}
    places: dict[fx.Node, Place] = {}
    for prefix, graph in _graphs(model, ""):
        for node in graph.nodes:
            if node.op == "call_module":
                places[node] = _place(model, prefix + str(node.target))
                calls.setdefault(id(places[node].module), []).append(node)
    chains: dict[int, _Chain] = {}
    reasons: dict[int, Reason] = {}
    for key, nodes in calls.items():
        norm = places[nodes[0]]
        if not isinstance(norm.module, nn.BatchNorm2d):
            continue
        before = _only_input(nodes[0])
        conv = None if before is None else places.get(before)
        if len(nodes) > 1:
            reasons[key] = "it is called more than once"
        elif before is None or conv is None or plain_type(conv.module) is not nn.Conv2d:
            kind = "" if conv is None else f" but a {plain_type(conv.module).__name__}"
            reasons[key] = f"it does not follow a plain nn.Conv2d{kind}"
        elif len(before.users) > 1:
            reasons[key] = "something else takes the convolution's output too"
        elif len(calls[id(conv.module)]) > 1:
            reasons[key] = "its convolution is called more than once"
        else:
            chains[key] = _Chain(conv, norm, _activation(nodes[0], places, calls))
    return chains, reasons


def _only_input(node: fx.Node) -> fx.Node | None:
    before = node.args[0] if len(node.args) == 1 and not node.kwargs else None
    return before if isinstance(before, fx.Node) else None


def _activation(norm: fx.Node, places: dict[fx.Node, Place], calls: dict[int, list[fx.Node]]) -> Place | None:
    """The activation after the norm, if nothing else takes the norm's output; identities in between are skipped."""
    node = norm
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node not in places or _only_input(node) is None:
            return None
        module = places[node].module
        if not may_skip(module):
            return None
        if type(module) is not nn.Identity:
            alone = len(calls[id(module)]) == 1
            return places[node] if alone and type(module) in FOLDED and _act(module) is not None else None
    return None


def _place(model: nn.Module, path: str) -> Place:
    parent, _, name = path.rpartition(".")
    return Place(model.get_submodule(parent), name, model.get_submodule(path))


def _why_not(conv: nn.Conv2d, norm: nn.Module) -> Reason | None:
    if conv.training or norm.training:
        return "training mode: call model.eval() first"
    if type(norm) not in _NORMS:
        return f"subclass of BatchNorm2d: {type(norm).__name__}"
    statistics: Any = norm._buffers
    if statistics["running_mean"] is None or statistics["running_var"] is None:
        return "it has no running statistics"
    if not reads_weights(conv):
        return "hooks watch its convolution, or a parametrisation computes the weight"
    if not may_skip(norm):
        return "hooks watch it"
    tensors = [*conv.parameters(), *norm.parameters(), *norm.buffers()]
    if any(tensor.is_inference() for tensor in tensors):
        return "its tensors were made in inference mode, where torch does not count their changes"
    if not conv.weight.is_floating_point() or any(tensor.is_meta for tensor in tensors):
        return "its weights are complex, or have no values"
    if len({tensor.device for tensor in tensors}) > 1:
        return "its tensors are on different devices"
    return None


def _make(chain: _Chain) -> Fold:
    norm: Any = chain.norm.module
    act, others = "identity", []
    if type(norm) is BatchNormAct2d:  # its own activation comes before the one that follows
        others = [Place(norm, "drop", norm.drop), Place(norm, "act", norm.act)]
        if type(norm.drop) is nn.Identity:
            act = _act(norm.act) or "identity"
    elif chain.act is not None:
        act, others = _act(chain.act.module) or "identity", [chain.act]
    with torch.inference_mode(False):
        return Fold(chain.conv, chain.norm, others, act)


def _act(module: nn.Module) -> str | None:
    return "relu6" if type(module) is nn.ReLU6 else act_name(module)
