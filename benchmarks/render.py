"""Render all documents from the measured rows: `python -m benchmarks.render`, or `make cards`.

It writes hub_cards, the tables of README.md and kernels/README.md, the pages of the studies and of speed, the costs of
each net, and the facts that the package has beside its weights.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import timm

from benchmarks._command import Parser, command
from benchmarks.deploy.rows import DeployRow, deploy_files
from benchmarks.deploy.tables import render_deploy, render_deploy_page
from benchmarks.evidence.published import published_by_others
from benchmarks.evidence.rows import RECIPES, read_classes, read_rows, shipped_row
from benchmarks.evidence.studies import ROWS, STUDIES, committed, render_gain, render_page, render_plots
from benchmarks.floors.rows import FLOORS, LAUNCHES, FloorRow, LaunchRow, render_floors, render_launches
from benchmarks.speed.rows import SpeedRow, is_cpu, speed_files
from benchmarks.speed.tables import render_speed, render_steps
from seattn.core import records
from seattn.core.errors import UserError
from seattn.core.files import write_bytes, write_text
from seattn.core.recipe import load_recipe
from seattn.evaluation.profile.costs import measure_costs
from seattn.hub.card import picture_name, render_card, render_table
from seattn.hub.facts import Facts, packaged_facts
from seattn.hub.picture import render_picture
from seattn.models import models_with_weights
from seattn.models._family import split_attn
from seattn.models._pretrained import WEIGHTS, weight_index
from seattn.models.listing import COSTS, render_costs
from seattn.models.load import TEMPERATURE

ROOT = Path(__file__).resolve().parent.parent
README, KERNELS = ROOT / "README.md", ROOT / "kernels" / "README.md"
RESULTS = ROOT / "benchmarks" / "results" / "README.md"

_SOURCE = "Rendered by `make cards` from the rows beside it; rows of earlier versions: [archive](archive)."
_STEPS = """## What a training step is made of

Each value is a time divided by that of our net with attention. `convolutions alone` has no attention, norms or
activations: timm's value divided by this one is what a step would gain if all of those cost nothing.
"""

_EXPORTED = """## Exported nets

Nets in PyTorch and as files of `seattn export` in other runtimes, timed in turns (`make bench-deploy DATA_DIR=…`). All
forms compute in float32 but for the 8-bit ones; PyTorch runs in channels_last, and its sizes are of float32 weights.
"""


def render_weights() -> dict[Path, str]:
    """Path and text of the card of each model with weights, the picture beside it, and the facts beside the weights.

    The facts are for `seattn hub stage`.

    Raises:
        UserError: if the recipe of a row was changed after its facts had been written.
    """
    texts = {}
    for facts in all_facts():
        _check_recipe(facts)
        cfg = timm.get_pretrained_cfg(facts.name)
        assert cfg is not None
        texts[ROOT / "hub_cards" / f"{facts.name}.md"] = render_card(
            facts, cfg, temperature=weight_index()[facts.name].get(TEMPERATURE, 1.0)
        )
        if facts.classes is not None:
            texts[ROOT / "hub_cards" / picture_name(facts.name)] = render_picture(facts.classes)
        texts[WEIGHTS / f"{facts.name}.json"] = facts.to_json()
    return texts


def all_facts() -> list[Facts]:
    """The facts on each of the packaged weights, from the rows, the recipes and the results by class."""
    rows, facts = read_rows(), []
    for name in models_with_weights():
        classes = read_classes(name)
        row = shipped_row(name, rows, classes)
        recipe = replace(load_recipe(RECIPES / f"{row.recipe}.yaml"), seed=row.seed)
        related = tuple(other for other in rows if _plain(other.name) == _plain(name))
        facts.append(Facts(name, row, related, recipe, classes))
    return facts


def _plain(name: str) -> str:
    """The name of weights without the kind of attention: "resnet20_cifar.cifar10" of "se_resnet20_cifar.cifar10"."""
    return split_attn(name)[1]


def _check_recipe(facts: Facts) -> None:
    """Refuse `facts` with another recipe than the package has of the same row: it is not what trained the weights."""
    if not (WEIGHTS / f"{facts.name}.json").exists():
        return
    before = packaged_facts(facts.name)
    if before.row == facts.row and before.recipe != facts.recipe:
        raise UserError(
            f"{RECIPES.name}/{facts.row.recipe}.yaml differs from the recipe that trained {facts.name}; restore it and "
            "put the new recipe into a file of its own"
        )


def render_readme(text: str) -> str:
    """`text` with new tables between their markers: accuracy, the gain of attention, speed, exported nets.

    The exported nets are those of the device that was measured last.
    """
    tables = {
        "results": render_table(all_facts(), published_by_others()),
        "ablation": render_gain(committed()),
        "speed": render_tables(headlines=True),
        "deploy": render_deploy(max(exported_rows(), key=lambda rows: rows[-1].conditions.date, default=[])),
    }
    return fill(text, tables)


def render_kernels(text: str) -> str:
    """`text`, kernels/README.md, with new tables: the floors on GPUs, and the launches of a block."""
    floors = render_floors(records.read_rows(FloorRow, FLOORS))
    return fill(text, {"floors": floors, "launches": render_launches(records.read_rows(LaunchRow, LAUNCHES))})


def fill(text: str, tables: Mapping[str, str]) -> str:
    """`text` with each table between the two markers of its name."""
    for name, table in tables.items():
        before, remainder = text.split(f"<!-- {name}: rendered by make cards -->\n")
        _, after = remainder.split(f"<!-- end of {name} -->")
        text = f"{before}<!-- {name}: rendered by make cards -->\n{table}<!-- end of {name} -->{after}"
    return text


def render_tables(*, headlines: bool) -> str:
    """The speed tables of all devices that have rows; `headlines`: the README's, of the CPU that was measured last."""
    measured = {path: rows for path in speed_files() if (rows := records.read_rows(SpeedRow, path))}
    cpus = sorted((path for path in measured if is_cpu(path)), key=lambda path: measured[path][-1].conditions.date)
    tables = [
        render_speed(rows, on_gpu=not is_cpu(path), headlines=headlines)
        for path, rows in measured.items()
        if not (headlines and path in cpus[:-1])
    ]
    return "\n".join(table for table in tables if table)


def exported_rows() -> list[list[DeployRow]]:
    """The rows of exported nets of each device that has some."""
    return [rows for path in deploy_files() if (rows := records.read_rows(DeployRow, path))]


def render_results() -> str:
    """benchmarks/results/README.md: all cases, the parts of a training step, and exported nets."""
    steps = [table for path in speed_files() if (table := render_steps(records.read_rows(SpeedRow, path)))]
    text = f"# Speed\n\n{_SOURCE}\n\n{render_tables(headlines=False)}"
    exported = [render_deploy_page(rows) for rows in exported_rows()]
    text += "\n" + _STEPS + "\n" + "\n".join(steps) if steps else ""
    return text + ("\n" + _EXPORTED + "\n" + "\n".join(exported) if exported else "")


def write_studies(rows: Path = ROWS, studies: Path = STUDIES) -> None:
    """Write the page of the studies and their plots beside their rows."""
    results = committed(rows, studies)
    write_text(rows / "README.md", render_page(results, rows))
    for name, svg in render_plots(results).items():
        write_bytes(rows / name, svg)


@command("render")
def main(arguments: Sequence[str] | None) -> int:
    Parser(__doc__).parse_args(arguments)
    for path, text in render_weights().items():
        write_text(path, text)
    write_text(RESULTS, render_results())
    write_studies()
    write_text(COSTS, render_costs(measure_costs()))
    for readme, render in ((README, render_readme), (KERNELS, render_kernels)):
        write_text(readme, render(readme.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
