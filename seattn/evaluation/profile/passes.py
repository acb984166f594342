"""Counts how often the end of a residual block reads and writes its map: with the kernels, and in eager PyTorch.

The numbers are those of kernels/README.md ("What has to move", "Counted", "What `seattn profile` counts"): reads and
writes of whole maps in a training step on a GPU, forward and backward; (N, C) numbers are not counted.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from timm.layers import DropPath, GatherExcite, GlobalContext
from timm.layers.cbam import CbamModule, LightCbamModule
from torch import nn

from seattn.blocks.attended.base import Attended, attended_class
from seattn.blocks.excitation import Reason, excitation_of, known_types
from seattn.blocks.fused.base import Fused, fused_class
from seattn.blocks.fused.residual import _Block, _tail_parts
from seattn.blocks.tail import norm_reason, plan_tail
from seattn.layers import Cbam, get_attn, list_attn
from seattn.ops._tail.excitation import Excitation


class Passes(NamedTuple):
    """Reads and writes of one map."""

    forward: float
    backward: float


# Each step by itself in eager PyTorch; where a backward adds to an existing gradient, it reads both and writes one.
EAGER = {
    "norm": Passes(3, 5),  # statistics, then apply; backward: sums over dy and x, then apply
    "gate": Passes(3, 10),  # mean 1, scale 2; backward: product 6, mean 1, their sum 3
    "cbam": Passes(8, 31.5),  # two gates of mean 1, maximum 1, scale 2; backward 15.75 each, a mask is a quarter
    "drop path": Passes(2, 2),
    "add": Passes(3, 0),  # the gradient passes through unchanged
    "act": Passes(2, 3),  # backward: the mask from y
}
CBAM_KERNELS = Passes(3 + 3, 5 + 5)  # channel gate, spatial gate


class OneProgram(NamedTuple):
    """The limits up to which SE without a norm runs as one program for each sample, in a batch of 96 or more."""

    channels: int
    hidden: int
    map_bytes: float


ONE_PROGRAM = OneProgram(
    channels=512, hidden=64, map_bytes=40_000_000 // (2 * 132)
)  # as in the kernels, held by a test


@dataclass(frozen=True)
class ProfileOperator:
    """The part of a tail that one of seattn's operators computes.

    Args:
        attention: "se", "ese", "eca", or "" if there is none.
        hidden: the number R of hidden channels of SE.
        norm, add, relu: whether the operator also computes this step.
    """

    attention: str
    hidden: int
    norm: bool
    add: bool
    relu: bool

    def passes(self, channels: int, map_bytes: float) -> Passes:
        """The passes over a map.

        Forward: one for the moments, then those that apply norm and gate; backward: those that reduce, then those that
        apply.
        """
        forward = 1 + (3 if self.add else 2)
        backward = (4 if self.relu else 2) + (3 if self.norm else 2)
        limits = ONE_PROGRAM
        cached = self.attention == "se" and not self.norm and self.hidden <= limits.hidden
        cached = cached and channels <= limits.channels and map_bytes <= limits.map_bytes
        return Passes(forward - 1, backward - 1) if cached else Passes(forward, backward)


@dataclass(frozen=True)
class Tail:
    """The end of a block, or an attention layer outside of blocks, with the steps that read and write its map.

    Args:
        name: the name of the module that has the map.
        of_input: whether the map is the module's input; otherwise it is the output.
        operator: the part that one operator computes; None if there is no such part.
        alone: the other steps, keys of `EAGER`, or "cbam kernels".
        eager: all steps, keys of `EAGER`.
        unknown: the type of an attention layer whose passes are not known.
    """

    name: str
    of_input: bool
    operator: ProfileOperator | None
    alone: tuple[str, ...]
    eager: tuple[str, ...]
    unknown: str = ""

    def passes(self, channels: int, map_bytes: float) -> Passes:
        """The passes when the model runs with Triton kernels."""
        parts = [CBAM_KERNELS if step == "cbam kernels" else EAGER[step] for step in self.alone]
        return _sum(parts if self.operator is None else [*parts, self.operator.passes(channels, map_bytes)])

    def eager_passes(self) -> Passes:
        """The passes when each step runs by itself, as in timm's modules."""
        return _sum([EAGER[step] for step in self.eager])


def _sum(parts: Sequence[Passes]) -> Passes:
    return Passes(sum(part.forward for part in parts), sum(part.backward for part in parts))


def attention_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The attention layers of the model by name: seattn's registered ones and those of timm and torchvision."""
    kinds: tuple[type[nn.Module], ...] = (
        *(get_attn(name) for name in list_attn()),
        *known_types(),
        CbamModule,
        LightCbamModule,
        GatherExcite,
        GlobalContext,
    )
    layers: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, kinds) and not any(name.startswith(f"{outer}.") for outer in layers):
            layers[name] = module
    return layers


def find_tails(model: nn.Module) -> list[Tail]:
    """The ends of all residual blocks of a known kind, and all attention layers outside of them.

    The model must be in training mode and without hooks: both decide which steps an operator may compute.
    """
    tails: list[Tail] = []
    covered: set[int] = set()  # attention that belongs to a block's end
    for name, module in model.named_modules():
        if isinstance(module, Attended) or attended_class(type(module)) is not None or _is_fusible(module):
            tail, attn = _block_tail(name, module)
            tails.append(tail)
            covered.add(id(attn))
    tails += [
        _attention_tail(name, layer) for name, layer in attention_layers(model).items() if id(layer) not in covered
    ]
    return tails


def _is_fusible(module: nn.Module) -> bool:
    target = fused_class(type(module))
    return isinstance(module, _Block) or (target is not None and issubclass(target, _Block))


def _block_tail(name: str, block: nn.Module) -> tuple[Tail, nn.Module | None]:
    """The block's end, and the attention layer in it."""
    attn: nn.Module | None = None
    bn: nn.Module | None = None
    if _is_fusible(block):
        bn = _tail_parts(block).bn
    if isinstance(block, Attended):
        if block.attn_placement == "standard" and block._adds(block):
            attn = getattr(block, block._slot)
        drop_path, act = block._after()
        return _tail(name, bn, attn, drop_path, act, adds=block._adds(block), fused=attn is not None, split=True), attn
    if _is_fusible(block):
        bn, attn, act, drop_path = _tail_parts(block)
        return _tail(name, bn, attn, drop_path, act, adds=True, fused=isinstance(block, _Block)), attn
    block_class: Any = attended_class(type(block))
    drop_path, act = block_class._after(block)
    return _tail(name, None, None, drop_path, act, adds=block_class._adds(block), fused=False), None


def _tail(
    name: str,
    bn: nn.Module | None,
    attn: nn.Module | None,
    drop_path: nn.Module | None,
    act: nn.Module,
    *,
    adds: bool,
    fused: bool,
    split: bool = False,
) -> Tail:
    """The tail of these steps.

    Args:
        fused: whether the block calls an operator for its end.
        split: whether the norm runs by itself before the operator.
    """
    drops = isinstance(drop_path, DropPath) and bool(drop_path.drop_prob) and drop_path.training
    present = {
        "norm": bn is not None and norm_reason(bn) is None,
        "drop path": drops and adds,
        "add": adds,
        "act": type(act) is not nn.Identity,
    }
    steps = [step for step, is_present in present.items() if is_present]
    layer = Tail(name, False, None, (), ()) if attn is None else _attention_tail(name, attn)
    operator, inside, attention = layer.operator, set[str](), layer.alone
    if fused:
        plan = plan_tail(None if split else bn, attn, act, drop_path)
        excitation = plan.excitation
        if excitation is not None and (attn is not None or (plan.norm and plan.add)):
            computed = {"norm": plan.norm, "add": plan.add, "act": plan.relu}
            inside = {step for step, is_inside in computed.items() if is_inside}
            operator, attention = _operator(excitation, inside), ()
    outside = [step for step in steps if step not in inside]
    return Tail(
        name=name,
        of_input=False,
        operator=operator,
        alone=(*outside, *attention),
        eager=(*steps, *layer.eager),
        unknown=layer.unknown,
    )


def _attention_tail(name: str, attn: nn.Module) -> Tail:
    """An attention layer with which no other step is fused."""
    excitation = excitation_of(attn)
    is_ours = isinstance(attn, (Fused, *(get_attn(kind) for kind in list_attn())))
    if isinstance(excitation, Reason):
        if isinstance(attn, (Cbam, CbamModule)):
            return Tail(name, True, None, ("cbam kernels" if is_ours else "cbam",), ("cbam",))
        return Tail(name, True, None, (), (), type(attn).__name__)
    if is_ours:
        return Tail(name, True, _operator(excitation, ()), (), ("gate",))
    return Tail(name, True, None, ("gate",), ("gate",))


def _operator(excitation: Excitation, inside: Collection[str]) -> ProfileOperator:
    return ProfileOperator(
        attention="" if excitation.kind == "none" else excitation.kind,
        hidden=excitation.w1.shape[0] if excitation.kind == "se" and excitation.w1 is not None else 0,
        norm="norm" in inside,
        add="add" in inside,
        relu="act" in inside,
    )
