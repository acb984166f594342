"""Parameters and MACs of every net here, from a file that `make cards` writes: building them all takes too long."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

COSTS = Path(__file__).resolve().parent / "costs.json"


@dataclass(frozen=True)
class Costs:
    """Of a net as its cfg has it: number of parameters, MACs for one image, (channels, height, width) of the image."""

    parameters: int
    macs: int
    input_size: tuple[int, int, int]


@cache
def read_costs() -> dict[str, Costs]:
    """Name of an architecture -> its costs."""
    content = json.loads(COSTS.read_text(encoding="utf-8"))
    return {name: Costs(row["parameters"], row["macs"], tuple(row["input_size"])) for name, row in content.items()}


def render_costs(costs: dict[str, Costs]) -> str:
    """The text of the file: a line a net."""
    lines = [
        f'  "{name}": {{"parameters": {row.parameters}, "macs": {row.macs}, "input_size": {list(row.input_size)}}}'
        for name, row in sorted(costs.items())
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"
