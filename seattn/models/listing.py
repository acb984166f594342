"""The nets of this package by family, with what they cost and where their weights are."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from itertools import groupby
from typing import Any

import timm
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from timm.models import PretrainedCfg, get_arch_pretrained_cfgs

from seattn.cli.tables import number
from seattn.core.errors import UserError
from seattn.evaluation.profile.costs import parameters_and_macs
from seattn.models._costs import Costs, read_costs
from seattn.models.load import our_models

NO_WEIGHTS = "none"


@dataclass(frozen=True)
class Net:
    """An architecture.

    Args:
        name: without a tag.
        family: the module of `seattn.models` that it is from.
        costs: parameters, MACs for one image, and the image's size.
        weights: tag (a data set; "" for a net without tags) -> "package", "Hub" or "none".
    """

    name: str
    family: str
    costs: Costs
    weights: dict[str, str]

    @property
    def pretrained(self) -> bool:
        """Whether any of its tags has weights."""
        return any(place != NO_WEIGHTS for place in self.weights.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "family": self.family, **asdict(self.costs), "weights": self.weights}


def list_nets(pattern: str | None = None, *, family: str | None = None, pretrained: bool = False) -> list[Net]:
    """The nets, families together, in each by name.

    Args:
        pattern: as in `timm.list_models` if it has a wildcard, else a part of the name.
        family: only this one.
        pretrained: only those with weights.

    Raises:
        UserError: if there is no such family, or nothing is left.
    """
    costs = read_costs()
    nets = [Net(name, _family(name), costs[name], _weights(name)) for name in our_models()]
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
        given = [f"{pattern!r}"] if pattern is not None else []
        given += [f"the family {family}"] if family is not None else []
        given += ["trained weights"] if pretrained else []
        raise UserError(f"no net here fits {' and '.join(given)}; `seattn list` shows all")
    return sorted(found, key=lambda net: (families.index(net.family), _plain(net.name), net.name))


def measure_costs() -> dict[str, Costs]:
    """The costs of every net, counted now."""
    return {name: measure_cost(name) for name in our_models()}


def measure_cost(name: str) -> Costs:
    """The costs of one net, counted now."""
    with torch.device("meta"):
        model: Any = timm.create_model(name)
    parameters, macs = parameters_and_macs(model)
    return Costs(parameters, macs, tuple(model.pretrained_cfg["input_size"]))


def nets_tables(nets: Sequence[Net]) -> list[Table]:
    """For the terminal: a table a family, with its data sets in the title."""
    width = max(len(net.name) for net in nets)
    tables = []
    for family, members in groupby(nets, key=lambda net: net.family):
        rows = list(members)
        tags = list(dict.fromkeys(f".{tag}" for net in rows for tag in net.weights if tag))
        title = Text(f"{family}: tags {', '.join(tags)}" if tags else family, style="bold")
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        table.add_column("net", min_width=width, no_wrap=True)
        for heading in ("parameters", "MACs", "input"):
            table.add_column(heading, justify="right", min_width=9)
        table.add_column("weights", overflow="fold")
        for net in rows:
            size = "x".join(map(str, net.costs.input_size))
            parameters = f"{net.costs.parameters / 1e6:.2f} M"
            table.add_row(Text(net.name), parameters, number(net.costs.macs), size, Text(_places(net.weights)))
        tables.append(table)
    return tables


def _places(weights: dict[str, str]) -> str:
    there = {tag: place for tag, place in weights.items() if place != NO_WEIGHTS}
    return ", ".join(f"{tag}: {place}" if tag else place for tag, place in there.items()) or NO_WEIGHTS


def _family(name: str) -> str:
    return timm.model_entrypoint(name).__module__.rpartition(".")[2]


def _plain(name: str) -> str:
    """The name without the kind of attention, so that a net stands beside its twins."""
    for kind in ("se_", "eca_", "cbam_"):
        name = name.removeprefix(kind)
    return name


def _weights(name: str) -> dict[str, str]:
    return {_tag(name, key): _place(cfg) for key, cfg in get_arch_pretrained_cfgs(name).items()}


def _tag(name: str, key: str) -> str:
    return key.removeprefix(name).removeprefix(".")


def _place(cfg: PretrainedCfg) -> str:
    return "package" if cfg.file else "Hub" if cfg.has_weights else NO_WEIGHTS
