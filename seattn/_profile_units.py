"""The parts of a net that a profile has a row for: stem, stages, head."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn
from torch.utils.hooks import RemovableHandle

from seattn.blocks.attended.insert import find_stages

STEM, HEAD = "stem", "head"


@dataclass(frozen=True)
class Units:
    """The rows, in the order of the modules, and which modules belong to which.

    Args:
        names: of the rows.
        roots: name of a module -> row; whatever stands below such a module belongs to the same row.
    """

    names: tuple[str, ...]
    roots: dict[str, str] = field(default_factory=dict)

    def of(self, module: str) -> str:
        """The row of the module, parameter or buffer called `module`; what belongs to no part goes to the first."""
        parts = module.split(".")
        for length in range(len(parts), 0, -1):
            if (row := self.roots.get(".".join(parts[:length]))) is not None:
                return row
        return self.names[0]


def find_units(model: nn.Module) -> Units:
    """The stages that hold residual blocks of a known kind, with "stem" before and "head" after them.

    In a net without such blocks every child that holds parameters is a row by its own name.
    """
    stages = {_stage_of(site.name) for sites in find_stages(model) for site in sites} - {""}
    if stages:
        roots = dict(_split(model, "", stages))
    else:
        roots = {name: name for name, child in model.named_children() if _holds_parameters(child)}
    return Units(tuple(dict.fromkeys(roots.values())) or (STEM,), roots)


def _stage_of(block: str) -> str:
    """The module that holds the block, or the numbered one above it: stages.0 for stages.0.blocks.1."""
    stage = block.rpartition(".")[0]
    above, _, last = stage.rpartition(".")
    return above if above.rpartition(".")[2].isdecimal() and not last.isdecimal() else stage


def _split(module: nn.Module, prefix: str, stages: set[str]) -> Iterator[tuple[str, str]]:
    """(module, row) of everything below `module`, which is no stage but has one below."""
    row = STEM
    for child_name, child in module.named_children():
        name = f"{prefix}{child_name}"
        if any(stage.startswith(f"{name}.") for stage in stages):
            yield from _split(child, f"{name}.", stages)
            row = HEAD
        elif name in stages or child_name.isdecimal():  # beside a stage in one list of them
            yield name, name
            row = HEAD
        else:
            yield name, row


def _holds_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


@contextmanager
def entered(model: nn.Module, units: Units, tell: Callable[[str], None]) -> Iterator[None]:
    """Call `tell(row)` whenever a forward pass inside the `with` block comes to a module of a row."""

    def watch(module: nn.Module, row: str) -> Iterator[RemovableHandle]:
        if isinstance(module, nn.ModuleList):  # is never called; those that it holds are
            for child in module:
                yield from watch(child, row)
        else:
            yield module.register_forward_pre_hook(lambda *_: tell(row))

    handles = [handle for name, row in units.roots.items() for handle in watch(model.get_submodule(name), row)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
