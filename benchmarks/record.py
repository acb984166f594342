"""Add the results of finished runs to the project: `python -m benchmarks.record [--ship --data-dir DIR] RUN_DIR…`.

Appends each run's row to benchmarks/results/accuracy.csv. --ship also puts weights into the package, matrices and
filters in half precision. They are scored again in that form, on the whole test split in DIR: the row has these scores,
and the results by class go into benchmarks/results/classes. Of several runs of one name, the run that was best on its
held-out images ships. Weights below the floor of their entry in zoo_configs/queue.yaml, or of another entry for the
same net, do not ship. `make cards` renders the documents.

`--classes NAME --data-dir DIR` scores weights that are already in the package by class again, and `--temperature NAME
--data-dir DIR` fits their temperature again, on the images that their run held out, so --classes is due after it;
--ship does both.
"""

import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks._command import Parser, command
from benchmarks.evidence.rows import (
    ACCURACY,
    RECIPES,
    append_row,
    read_classes,
    read_rows,
    read_run,
    recipe_of,
    shipped_row,
    write_classes,
)
from benchmarks.evidence.ship import held_out_temperature, place, score, score_again, write_half
from benchmarks.zoo.entries import QUEUE, read_queue
from seattn.core.errors import UserError
from seattn.core.recipe import load_recipe
from seattn.core.rows import AccuracyRow
from seattn.hub.facts import ClassResults
from seattn.models._pretrained import WEIGHTS


@command("record")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--ship", action="store_true", help="also put the weights into the package")
    parser.add_argument("--data-dir", type=Path, help="the folder that holds test/<class>/<image>")
    parser.add_argument("--classes", metavar="NAME", help="weights in the package to score by class again")
    parser.add_argument("--temperature", metavar="NAME", help="weights in the package to fit the temperature of")
    parser.add_argument("run_dir", nargs="*", type=Path)
    args = parser.parse_args(arguments)
    if sum(map(bool, (args.run_dir, args.classes, args.temperature))) != 1:
        raise UserError("give folders of runs, or --classes or --temperature and the name of weights in the package")
    if (args.ship or args.classes or args.temperature) and args.data_dir is None:
        raise UserError("--ship, --classes and --temperature score the weights: give --data-dir, the folder of images")
    if args.classes:
        row = shipped_row(args.classes, read_rows(), read_classes(args.classes))
        write_classes(score_again(row, args.data_dir))
        return 0
    if args.temperature:
        row = shipped_row(args.temperature, read_rows(), read_classes(args.temperature))
        path = WEIGHTS / f"{row.name}.safetensors"
        recipe = load_recipe(RECIPES / f"{row.recipe}.yaml")
        temperature = held_out_temperature(row, recipe, path, args.data_dir)
        if temperature is None:
            raise UserError(f"the run of {row.name} held out no images, on which a temperature could be fitted")
        place(path, row.name, temperature)
        return 0
    runs = {path: _read(path) for path in dict.fromkeys(Path(os.path.realpath(path)) for path in args.run_dir)}
    ships = _best(runs.values(), read_rows()) if args.ship else []
    with tempfile.TemporaryDirectory() as folder:
        found = [
            _prepare(path, row, args.data_dir, Path(folder) / f"{number}.safetensors") if row in ships else Found(row)
            for number, (path, row) in enumerate(runs.items())
        ]
        known = read_rows()
        for result in found:
            if result.row in known:
                raise UserError(f"{ACCURACY} already has this row of {result.row.name}, or two runs have it")
            known.append(result.row)
        for result in found:  # the row comes last: a command that was interrupted can be given again
            if result.classes is not None:
                place(result.weights, result.row.name, result.classes.temperature)
                write_classes(result.classes)
            append_row(result.row)
            print(f"{ACCURACY}: {result.row.name} {100 * result.row.top1:.2f} %")
    return 0


@dataclass(frozen=True)
class Found:
    """What is to be written for a run: its row and, if it ships, its weights in half precision and their results."""

    row: AccuracyRow
    weights: Path = Path()
    classes: ClassResults | None = None


def _read(run_dir: Path) -> AccuracyRow:
    row = replace(read_run(run_dir), recipe=recipe_of(run_dir))
    if row.split != "test":
        raise UserError(f"{run_dir} was scored on its {row.split} part; only scores of a test split are accepted")
    if (model := load_recipe(run_dir / "recipe.yaml").model) != row.name:
        raise UserError(f"{run_dir} mixes two runs: result.json is of {row.name}, recipe.yaml of {model}")
    return row


def _best(rows: Iterable[AccuracyRow], before: Sequence[AccuracyRow]) -> list[AccuracyRow]:
    """For each name the row that is best on the held-out images, also among the rows of earlier runs, `before`.

    Raises:
        UserError: if an earlier run was better, or runs without held-out images would have to be compared.
    """
    best: dict[str, AccuracyRow] = {}
    for row in rows:
        first = best.setdefault(row.name, row)
        if first is not row and _better(row, first):
            best[row.name] = row
    for row in best.values():
        for other in before:
            if (other.name, other.recipe) != (row.name, row.recipe):
                continue
            if other.seed == row.seed and None in (other.held_out_top1, row.held_out_top1):
                continue  # the same run, recorded before
            if _better(other, row):
                raise UserError(
                    f"{row.name}: the run of seed {other.seed} was better on the held-out images "
                    f"({other.held_out_top1:.2%}, seed {row.seed} {row.held_out_top1:.2%}); ship that run"
                )
    return list(best.values())


def _better(row: AccuracyRow, other: AccuracyRow) -> bool:
    if row.held_out_top1 is None or other.held_out_top1 is None:
        raise UserError(
            f"{row.name}: one of the runs of the seeds {row.seed} and {other.seed} held out no images, so they would "
            "have to be compared on the test split; only the first run can ship"
        )
    return row.held_out_top1 > other.held_out_top1


def _prepare(run_dir: Path, row: AccuracyRow, data_dir: Path, half: Path) -> Found:
    """Score the weights of a run in the form that ships, which is written to `half`.

    Raises:
        UserError: if they must not ship, or the data are not those of the run.
    """
    write_half(run_dir / "model.safetensors", half)
    temperature = held_out_temperature(row, load_recipe(run_dir / "recipe.yaml"), half, data_dir)
    row, classes = score(row, half, data_dir, temperature)
    _require_floor(row)
    return Found(row, half, classes)


def _require_floor(row: AccuracyRow) -> None:
    """Raise UserError if the queue does not publish this recipe, or has a floor above the row's accuracy.

    The entry of the row's seed counts, or the recipe's first one; for a recipe that is not in the queue, an entry that
    publishes the same net.
    """
    queue = read_queue()
    entries = [entry for entry in queue if entry.recipe == row.recipe] or [
        entry for entry in queue if entry.resolved.model == row.name and entry.floor is not None
    ]
    if not entries:
        return
    floor = next((entry for entry in entries if entry.seed == row.seed), entries[0]).floor
    if floor is None:
        raise UserError(
            f"{row.name}: {QUEUE.name} has no floor for {row.recipe}, so its weights are not published; without --ship "
            "its row is recorded"
        )
    if 100 * row.top1 < floor:
        raise UserError(
            f"{row.name} has {100 * row.top1:.2f} % of the test images, below the floor of {floor:g} % in "
            f"{QUEUE.name}; without --ship its row is recorded"
        )


if __name__ == "__main__":
    sys.exit(main())
