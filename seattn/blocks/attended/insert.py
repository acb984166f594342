"""Attention layers are added to the residual blocks of an existing model, and removed again.

Shapes: B images, C channels, H x W pixels.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from seattn.blocks.attended.base import PLACEMENTS, Attended, attended_class, attended_types
from seattn.layers._registry import get_attn, is_attn

STARTS = ("paper", "identity")


@dataclass(frozen=True)
class Site:
    """One residual block: its name in the model, and the class that gives it attention."""

    name: str
    block: nn.Module
    kind: type[Attended]

    @property
    def place(self) -> str:
        """Name of the attention layer in the model."""
        return f"{self.name}.{self.kind._slot}" if self.name else self.kind._slot


@dataclass(frozen=True)
class Attention:
    """A kind of attention layer, its options, the stages that get it, and its place in the blocks.

    Args:
        layer: registered name.
        placement: one of `PLACEMENTS`.
        stages: numbers of the stages, from 1; None for all.
        rd_ratio: hidden over input channels, one number or one a stage; None for the layer's own.
        options: further keywords of the layer; a value of None means the layer's default.
        start: "paper" (convolutions as timm's ResNet draws them) or "identity" (every gate 1).
    """

    layer: str
    placement: str = "standard"
    stages: Sequence[int] | None = None
    rd_ratio: float | Sequence[float] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    start: str = "paper"


def find_stages(model: nn.Module) -> list[list[Site]]:
    """The residual blocks of the model that can carry attention, by stage, in the order of the forward pass.

    A stage is the blocks of one parent module. If one module holds all blocks (torchvision's MobileNetV2), a stage is
    the blocks of one width.
    """
    groups: dict[str, list[Site]] = {}
    for name, module in model.named_modules():
        kind = type(module) if isinstance(module, Attended) else attended_class(type(module))
        if kind is not None:
            groups.setdefault(name.rpartition(".")[0], []).append(Site(name, module, kind))
    if len(groups) == 1:
        by_width: dict[str, list[Site]] = {}
        for site in next(iter(groups.values())):
            by_width.setdefault(str(site.kind._channels(site.block).outside), []).append(site)
        groups = by_width
    return list(groups.values())


def insert_attention(model: nn.Module, attention: Attention) -> None:
    """Give the model's residual blocks attention, in place. All arguments are checked before the model is changed.

    Raises:
        ValueError: if a name or number is wrong, the model has no residual blocks that are known, or one of them has
            attention already.
        TypeError: if the layer does not take an option.
    """
    stages = find_stages(model)
    _check(model, attention, stages)
    new = list(_layers(attention, stages))
    for site, layer in new:
        _start(layer, attention.start)
        block: Any = site.block
        layer.train(block.training)
        setattr(block, site.kind._slot, layer)
        if not (attention.placement == "standard" and site.kind._has_own_place):
            block.attn_placement = attention.placement
            block._seattn_class = type(block)  # the class without attention, for `extract_attention`
            block.__class__ = site.kind


def extract_attention(model: nn.Module) -> int:
    """Remove the layers that `insert_attention` added, in place; returns their number."""
    count = 0
    for module in list(model.modules()):
        block: Any = module
        kind = type(module) if isinstance(module, Attended) else attended_class(type(module))
        if kind is None:
            continue
        if isinstance(module, Attended):
            block.__class__ = block.__dict__.pop("_seattn_class")
            del block.attn_placement
            delattr(block, kind._slot)
        elif not kind._has_own_place or not is_attn(block.se):
            continue
        if kind._has_own_place:
            block.se = None
        count += 1
    return count


def _layers(attention: Attention, stages: list[list[Site]]) -> Iterator[tuple[Site, nn.Module]]:
    layer = get_attn(attention.layer)
    options = {key: value for key, value in attention.options.items() if value is not None}
    for number, sites in enumerate(stages, start=1):
        if attention.stages is not None and number not in attention.stages:
            continue
        ratio = _ratio_of(attention.rd_ratio, number)
        if ratio is not None:
            options["rd_ratio"] = ratio
        for site in sites:
            if attention.placement == "identity" and not site.kind._adds(site.block):
                continue
            inside, outside = site.kind._channels(site.block)
            like = next(site.block.parameters())
            channels = inside if attention.placement == "pre" else outside
            yield site, layer(channels, **options, device=like.device, dtype=like.dtype)


def _ratio_of(rd_ratio: float | Sequence[float] | None, number: int) -> float | None:
    return rd_ratio[number - 1] if isinstance(rd_ratio, Sequence) else rd_ratio


def _start(layer: nn.Module, start: str) -> None:
    if start == "identity":
        layer.start_at_identity()  # type: ignore[operator]  # _check has seen that it is there
        return
    for module in layer.modules():
        if isinstance(module, nn.Conv2d):  # as timm's ResNet does with all its convolutions
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _check(model: nn.Module, attention: Attention, stages: list[list[Site]]) -> None:
    layer = get_attn(attention.layer)
    _one_of("placement", attention.placement, PLACEMENTS)
    _one_of("start", attention.start, STARTS)
    if not stages:
        known = ", ".join(sorted({f"{kind.__module__}.{kind.__name__}" for kind in attended_types()}))
        raise ValueError(f"{type(model).__name__} has no residual block of a known kind; known: {known}")
    for site in (site for sites in stages for site in sites):
        if isinstance(site.block, Attended):
            present: nn.Module | None = getattr(site.block, site.kind._slot)
        else:
            present = site.kind._present(site.block)
        if present is not None:
            raise ValueError(
                f"{type(model).__name__} has attention already: {type(present).__name__} in {site.name}; "
                "call seattn.remove_attention first if it is seattn's"
            )
    _check_stages(attention, len(stages))
    _check_options(attention, layer)
    if attention.start == "identity" and not hasattr(layer, "start_at_identity"):
        raise ValueError(f"{layer.__name__} has no method start_at_identity(): use start='paper'")


def _check_stages(attention: Attention, count: int) -> None:
    stages = () if attention.stages is None else attention.stages
    if isinstance(stages, str) or not isinstance(stages, Sequence):
        raise ValueError(f"stages are a list of numbers from 1 to {count} (the first is 1), got {stages!r}")
    for number in stages:
        if isinstance(number, bool) or number not in range(1, count + 1):
            raise ValueError(f"stages are numbers from 1 to {count} (the first is 1), got {number!r}")
    ratio = attention.rd_ratio
    if isinstance(ratio, Sequence) and (isinstance(ratio, str) or len(ratio) != count):
        raise ValueError(f"rd_ratio must be one number, or one for each of the {count} stages; got {ratio!r}")


def _check_options(attention: Attention, layer: type[nn.Module]) -> None:
    takes = [name for name in list(inspect.signature(layer).parameters)[1:] if name not in ("device", "dtype")]
    given = [key for key, value in attention.options.items() if value is not None]
    given += ["rd_ratio"] if attention.rd_ratio is not None else []
    for name in given:
        if name not in takes:
            raise TypeError(f"attention {attention.layer!r} takes no {name!r}; it takes {', '.join(takes)}")


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
