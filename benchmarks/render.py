"""Render what is shown from what was measured: hub_cards/*.md, the README's tables, the studies, what each net costs.

`make cards` runs it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks._command import Parser, command
from benchmarks._record import read_rows
from benchmarks._speed import is_cpu, read_speed, speed_files
from benchmarks._studies import ROWS, STUDIES, committed, render_gain, render_page, render_plots
from benchmarks._tables import render_speed
from seattn._files import atomic_path, write_text
from seattn.cards import render_card, render_table
from seattn.models import models_with_weights
from seattn.models._costs import COSTS, render_costs
from seattn.recipe import load_recipe
from seattn.zoo import measure_costs

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "README.md"
_BEGIN, _END = "<!-- results: rendered by make cards -->\n", "<!-- end of results -->"
_SPEED, _END_OF_SPEED = "<!-- speed: rendered by make cards -->\n", "<!-- end of speed -->"

_ABLATION, _END_OF_ABLATION = "<!-- ablation: rendered by make cards -->\n", "<!-- end of ablation -->"


def render_cards() -> dict[Path, str]:
    """Path and text of the card of each model that ships weights, from its newest row and its recipe."""
    rows = {row.name: row for row in read_rows()}
    return {
        ROOT / "hub_cards" / f"{name}.md": render_card(rows[name], load_recipe(ROOT / "zoo_configs" / f"{name}.yaml"))
        for name in models_with_weights()
    }


def render_readme(text: str) -> str:
    """`text` with the tables between their markers made anew: accuracy, SE's gain, speed on each device with rows."""
    shipped = set(models_with_weights())
    text = _between(text, _BEGIN, render_table([row for row in read_rows() if row.name in shipped]), _END)
    text = _between(text, _ABLATION, render_gain(committed()), _END_OF_ABLATION)
    return _between(text, _SPEED, render_tables(headlines=True), _END_OF_SPEED)


def render_tables(*, headlines: bool) -> str:
    """The speed tables of all devices that have rows; without `headlines` every case."""
    tables = [render_speed(read_speed(path), on_gpu=not is_cpu(path), headlines=headlines) for path in speed_files()]
    return "\n".join(table for table in tables if table)


def render_results() -> str:
    """benchmarks/results/README.md: all cases."""
    return f"# Speed\n\nRendered by `make cards` from the rows beside it.\n\n{render_tables(headlines=False)}"


def write_studies(rows: Path = ROWS, studies: Path = STUDIES) -> None:
    """The page of the studies and their plots, beside their rows."""
    results = committed(rows, studies)
    write_text(rows / "README.md", render_page(results))
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
    for path, text in render_cards().items():
        write_text(path, text)
    write_text(RESULTS, render_results())
    write_studies()
    write_text(COSTS, render_costs(measure_costs()))
    readme = ROOT / "README.md"
    write_text(readme, render_readme(readme.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
