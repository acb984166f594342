"""The nets of this package by family, with their costs and the place of their weights.

Parameters and MACs are read from a file that `make cards` writes, because building all nets takes too long.
"""

import difflib
import json
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import timm
from timm.models import get_arch_pretrained_cfgs, split_model_name_tag

from seattn.core.errors import UserError
from seattn.models._family import split_attn

COSTS = Path(__file__).resolve().parent / "costs.json"


@dataclass(frozen=True)
class Costs:
    """The number of parameters of a net with its cfg's classes, its MACs for one image, and the image's (C, H, W)."""

    parameters: int
    macs: int
    input_size: tuple[int, int, int]


@cache
def read_costs() -> dict[str, Costs]:
    """Name of an architecture -> its costs."""
    content = json.loads(COSTS.read_text(encoding="utf-8"))
    return {name: Costs(row["parameters"], row["macs"], tuple(row["input_size"])) for name, row in content.items()}


def render_costs(costs: dict[str, Costs]) -> str:
    """The text of the file: one line for each net."""
    lines = [
        f'  "{name}": {{"parameters": {row.parameters}, "macs": {row.macs}, "input_size": {list(row.input_size)}}}'
        for name, row in sorted(costs.items())
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


NO_WEIGHTS = "none"


@dataclass(frozen=True)
class Net:
    """An architecture.

    Args:
        name: without a tag.
        family: the module of `seattn.models` that defines the net.
        costs: parameters, MACs for one image, and the image's size; None for a net that is newer than the file.
        weights: tag (a data set; "" for a net without tags) -> "package", "Hub" or "none".
    """

    name: str
    family: str
    costs: Costs | None
    weights: dict[str, str]

    @property
    def pretrained(self) -> bool:
        """Whether any of its tags has weights."""
        return any(place != NO_WEIGHTS for place in self.weights.values())

    def to_dict(self) -> dict[str, Any]:
        """The net as plain values, for JSON."""
        costs = asdict(self.costs) if self.costs else dict.fromkeys(field.name for field in fields(Costs))
        return {"name": self.name, "family": self.family, **costs, "weights": self.weights}


def list_nets(pattern: str | None = None, *, family: str | None = None, pretrained: bool = False) -> list[Net]:
    """The nets, sorted by family, then by name without attention.

    Args:
        pattern: a pattern as in `timm.list_models`, or a part of the name.
        family: only nets of this family.
        pretrained: only nets with weights.

    Raises:
        UserError: if there is no such family, or no net fits.
    """
    costs = read_costs()
    nets = [Net(name, _family(name), costs.get(name), _weights(name)) for name in our_models()]
    families = sorted({net.family for net in nets})
    if family is not None and family not in families:
        raise UserError(f"unknown family {family!r}; families: {', '.join(families)}")
    wanted = pattern if pattern is None or any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    found = [
        net
        for net in nets
        if (wanted is None or fnmatch(net.name, wanted))
        and family in (None, net.family)
        and (net.pretrained or not pretrained)
    ]
    if not found:
        given = [f"the pattern {pattern!r}"] if pattern is not None else []
        given += [f"the family {family}"] if family is not None else []
        given += ["trained weights"] if pretrained else []
        raise UserError(f"no net matches {' and '.join(given)}; `seattn list` shows all nets")
    return sorted(found, key=lambda net: (families.index(net.family), split_attn(net.name)[1], net.name))


def _family(name: str) -> str:
    return timm.model_entrypoint(name).__module__.rpartition(".")[2]


def _weights(name: str) -> dict[str, str]:
    return {
        key.removeprefix(name).removeprefix("."): "package" if cfg.file else "Hub" if cfg.has_weights else NO_WEIGHTS
        for key, cfg in get_arch_pretrained_cfgs(name).items()
    }


def our_models() -> list[str]:
    """Names of the architectures that this package registers, without tags."""
    return [name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("seattn.")]


def check_name(spec: str) -> None:
    """Raise UserError, with the nearest names or the tags there are, unless `spec` is a known `arch` or `arch.tag`."""
    name, tag = split_model_name_tag(spec)
    if not timm.is_model(name):
        raise unknown_model(spec)
    configs = get_arch_pretrained_cfgs(name)
    if tag and spec not in configs:
        known = ", ".join(key for key in configs if "." in key) or "none"
        raise UserError(f"{name} has no tag {tag!r}; tags: {known}")


def unknown_model(spec: str) -> UserError:
    """The error for a name that timm does not know, with the nearest names."""
    name, _ = split_model_name_tag(spec)
    ours = our_models()
    near = difflib.get_close_matches(name, ours, n=3) or difflib.get_close_matches(name, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`seattn list` shows ours"
    return UserError(f"unknown model {spec!r}; {hint}")
