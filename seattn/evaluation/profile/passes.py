"""How often the end of a residual block passes over its map, T by T: what the kernels move, and eager PyTorch.

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


# One step by itself in eager PyTorch; a backward that adds to a gradient which is there already reads both, writes one.
EAGER = {
    "norm": Passes(3, 5),  # statistics, then apply; backward: sums over dy and x, then apply
    "gate": Passes(3, 10),  # mean 1, scale 2; backward: of the product 6, of the mean 1, their sum 3
    "cbam": Passes(8, 31.5),  # two gates of mean 1, maximum 1, scale 2; backward 15.75 each, a mask is a quarter
    "drop path": Passes(2, 2),
    "add": Passes(3, 0),  # its gradient is the one that came
    "act": Passes(2, 3),  # backward: the mask from y
}
CBAM_KERNELS = Passes(3 + 3, 5 + 5)  # channel gate, spatial gate


class OneProgram(NamedTuple):
    """When SE without a norm runs as one program a sample, in a batch of 96 or more; else in passes."""

    channels: int
    hidden: int
    map_bytes: float


ONE_PROGRAM = OneProgram(channels=512, hidden=64, map_bytes=40_000_000 // (2 * 132))  # a test holds it to the kernels'


@dataclass(frozen=True)
class ProfileOperator:
    """What one of seattn's operators does of a tail.

    Args:
        attention: "se", "ese", "eca", or "" if there is none.
        hidden: R of SE.
        norm, add, relu: the steps that are inside besides.
    """

    attention: str
    hidden: int
    norm: bool
    add: bool
    relu: bool

    def passes(self, channels: int, map_bytes: float) -> Passes:
        """Forward: moments 1 and apply; backward: reduce and apply."""
        forward = 1 + (3 if self.add else 2)
        backward = (4 if self.relu else 2) + (3 if self.norm else 2)
        limits = ONE_PROGRAM
        cached = self.attention == "se" and not self.norm and self.hidden <= limits.hidden
        cached = cached and channels <= limits.channels and map_bytes <= limits.map_bytes
        return Passes(forward - 1, backward - 1) if cached else Passes(forward, backward)


@dataclass(frozen=True)
class Tail:
    """One place where the map of a block's end, or of an attention layer by itself, is passed over.

    Args:
        name: of the module that has the map.
        of_input: the map is what the module gets, not what it gives.
        operator: the part that one operator does; None if there is no such part.
        alone: the other steps, keys of `EAGER`, or "cbam kernels".
        eager: all steps, keys of `EAGER`.
        unknown: type of an attention for which there are no numbers.
    """

    name: str
    of_input: bool
    operator: ProfileOperator | None
    alone: tuple[str, ...]
    eager: tuple[str, ...]
    unknown: str = ""

    def passes(self, channels: int, map_bytes: float) -> Passes:
        """As the model runs it with Triton kernels."""
        parts = [CBAM_KERNELS if step == "cbam kernels" else EAGER[step] for step in self.alone]
        return _sum(parts if self.operator is None else [*parts, self.operator.passes(channels, map_bytes)])

    def eager_passes(self) -> Passes:
        """Step by step, as timm's modules run it."""
        return _sum([EAGER[step] for step in self.eager])


def _sum(parts: Sequence[Passes]) -> Passes:
    return Passes(sum(part.forward for part in parts), sum(part.backward for part in parts))


def attention_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The attention layers of the model by name: seattn's registered ones and those of timm and torchvision."""
    kinds: tuple[type[nn.Module], ...] = (
        *(get_attn(name) for name in list_attn()),
        *known_types(),
        *(CbamModule, LightCbamModule, GatherExcite, GlobalContext),
    )
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, kinds) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def find_tails(model: nn.Module) -> list[Tail]:
    """The ends of all residual blocks of a known kind, and all attention that is in none of them.

    Ask in training mode and before hooks are set: both change what an operator may do.
    """
    tails: list[Tail] = []
    covered: set[int] = set()  # attention that belongs to a block's end
    for name, module in model.named_modules():
        if isinstance(module, Attended) or attended_class(type(module)) is not None or _is_fusible(module):
            tail, attn = _block_tail(name, module)
            tails.append(tail)
            covered.add(id(attn))
    tails += [_alone(name, layer) for name, layer in attention_layers(model).items() if id(layer) not in covered]
    return tails


def _is_fusible(module: nn.Module) -> bool:
    target = fused_class(type(module))
    return isinstance(module, _Block) or (target is not None and issubclass(target, _Block))


def _block_tail(name: str, block: nn.Module) -> tuple[Tail, nn.Module | None]:
    """The block's end, and the attention in it."""
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
    kind: Any = attended_class(type(block))
    drop_path, act = kind._after(block)
    return _tail(name, None, None, drop_path, act, adds=kind._adds(block), fused=False), None


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
    """Args: fused: the block calls an operator for its end; split: the norm runs before that by itself."""
    drops = isinstance(drop_path, DropPath) and bool(drop_path.drop_prob) and drop_path.training
    steps = {
        "norm": bn is not None and norm_reason(bn) is None,
        "drop path": drops and adds,
        "add": adds,
        "act": type(act) is not nn.Identity,
    }
    eager = [step for step, there in steps.items() if there]
    layer = Tail(name, False, None, (), ()) if attn is None else _alone(name, attn)
    operator, inside, alone = layer.operator, set[str](), layer.alone
    if fused:
        plan = plan_tail(None if split else bn, attn, act, drop_path)
        e = plan.excitation
        if e is not None and (attn is not None or (plan.norm and plan.add)):
            inside = {step for step, taken in (("norm", plan.norm), ("add", plan.add), ("act", plan.relu)) if taken}
            operator, alone = _operator(e, inside), ()
    left = [step for step in eager if step not in inside]
    return Tail(name, False, operator, (*left, *alone), (*eager, *layer.eager), layer.unknown)


def _alone(name: str, attn: nn.Module) -> Tail:
    """An attention layer that nothing is fused with."""
    e = excitation_of(attn)
    ours = isinstance(attn, (Fused, *(get_attn(kind) for kind in list_attn())))
    if not isinstance(e, Reason):
        return Tail(name, True, _operator(e, ()) if ours else None, () if ours else ("gate",), ("gate",))
    if isinstance(attn, (Cbam, CbamModule)):
        return Tail(name, True, None, ("cbam kernels" if ours else "cbam",), ("cbam",))
    return Tail(name, True, None, (), (), type(attn).__name__)


def _operator(e: Excitation, inside: Collection[str]) -> ProfileOperator:
    hidden = e.w1.shape[0] if e.kind == "se" and e.w1 is not None else 0
    return ProfileOperator(
        "" if e.kind == "none" else e.kind, hidden, "norm" in inside, "add" in inside, "act" in inside
    )
