"""Render what is shown from what was measured: hub_cards, the README's tables, the studies, what each net costs,
and what the package carries of its weights.

`make cards` runs it.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import timm

from benchmarks._command import Parser, command
from benchmarks.evidence.rows import RECIPES, read_classes, read_rows, shipped_row
from benchmarks.evidence.studies import ROWS, STUDIES, committed, render_gain, render_page, render_plots
from benchmarks.speed.rows import is_cpu, read_speed, speed_files
from benchmarks.speed.tables import render_speed, render_steps
from seattn.core.files import atomic_path, write_text
from seattn.core.recipe import load_recipe
from seattn.evaluation.profile.costs import measure_costs
from seattn.hub.card import picture_name, render_card, render_table
from seattn.hub.facts import Facts
from seattn.hub.picture import render_picture
from seattn.models import models_with_weights
from seattn.models._pretrained import WEIGHTS
from seattn.models.listing import COSTS, render_costs

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "README.md"
_BEGIN, _END = "<!-- results: rendered by make cards -->\n", "<!-- end of results -->"
_SPEED, _END_OF_SPEED = "<!-- speed: rendered by make cards -->\n", "<!-- end of speed -->"

_STEPS = """## What a training step is made of

Times over that of the net with attention and our tails. `convolutions alone` has neither attention nor norms and
activations: timm's time over it is what a step would gain if all of those cost nothing.
"""
_ABLATION, _END_OF_ABLATION = "<!-- ablation: rendered by make cards -->\n", "<!-- end of ablation -->"


def render_cards() -> dict[Path, str]:
    """Path and text of the card of each model that ships weights."""
    cards = {}
    for facts in all_facts():
        cfg = timm.get_pretrained_cfg(facts.name)
        assert cfg is not None
        cards[ROOT / "hub_cards" / f"{facts.name}.md"] = render_card(facts, cfg)
    return cards


def render_pictures() -> dict[Path, str]:
    """Path and text of the picture beside each card."""
    return {
        ROOT / "hub_cards" / picture_name(facts.name): render_picture(facts.classes)
        for facts in all_facts()
        if facts.classes is not None
    }


def render_facts() -> dict[Path, str]:
    """Path and text of what the package carries of its weights beside them, for `seattn hub stage`."""
    return {WEIGHTS / f"{facts.name}.json": facts.to_json() for facts in all_facts()}


def all_facts() -> list[Facts]:
    """What the rows, recipes and looks at each class say of the weights in the package."""
    rows, found = read_rows(), []
    for name in models_with_weights():
        classes = read_classes(name)
        row = shipped_row(name, rows, classes)
        recipe = replace(load_recipe(RECIPES / f"{row.recipe}.yaml"), seed=row.seed)
        found.append(Facts(name, row, tuple(other for other in rows if other.name == name), recipe, classes))
    return found


def render_readme(text: str) -> str:
    """`text` with the tables between their markers made anew: accuracy, SE's gain, speed on each device with rows."""
    text = _between(text, _BEGIN, render_table(all_facts()), _END)
    text = _between(text, _ABLATION, render_gain(committed()), _END_OF_ABLATION)
    return _between(text, _SPEED, render_tables(headlines=True), _END_OF_SPEED)


def render_tables(*, headlines: bool) -> str:
    """The speed tables of all devices that have rows; `headlines`: the README's, with the CPU measured last."""
    measured = {path: rows for path in speed_files() if (rows := read_speed(path))}
    cpus = sorted((path for path in measured if is_cpu(path)), key=lambda path: measured[path][-1].conditions.date)
    tables = [
        render_speed(rows, on_gpu=not is_cpu(path), headlines=headlines)
        for path, rows in measured.items()
        if not (headlines and path in cpus[:-1])
    ]
    return "\n".join(table for table in tables if table)


def render_results() -> str:
    """benchmarks/results/README.md: all cases, and what a training step is made of."""
    steps = [table for path in speed_files() if (table := render_steps(read_speed(path)))]
    text = f"# Speed\n\nRendered by `make cards` from the rows beside it.\n\n{render_tables(headlines=False)}"
    return text + ("\n" + _STEPS + "\n" + "\n".join(steps) if steps else "")


def write_studies(rows: Path = ROWS, studies: Path = STUDIES) -> None:
    """The page of the studies and their plots, beside their rows."""
    results = committed(rows, studies)
    write_text(rows / "README.md", render_page(results, rows))
    for name, svg in render_plots(results).items():
        with atomic_path(rows / name) as part:
            part.write_bytes(svg)


def _between(text: str, begin: str, new: str, end: str) -> str:
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return before + begin + new + end + after


@command("render")
def main(arguments: Sequence[str] | None) -> int:
    Parser(__doc__).parse_args(arguments)
    for path, text in {**render_cards(), **render_pictures(), **render_facts()}.items():
        write_text(path, text)
    write_text(RESULTS, render_results())
    write_studies()
    write_text(COSTS, render_costs(measure_costs()))
    readme = ROOT / "README.md"
    write_text(readme, render_readme(readme.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
