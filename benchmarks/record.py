"""Add the results of finished runs to the project: `python -m benchmarks.record [--ship --data-dir DIR] RUN_DIR…`.

Appends each run's row to benchmarks/results/accuracy.csv. --ship also puts weights into the package, matrices and
filters in half precision. They are scored again in that form, on the whole test split in DIR: the row has these scores,
and the results by class go into benchmarks/results/classes. Of several runs of one name, the run that was best on its
held-out images ships. Weights below the floor of their entry in zoo_configs/queue.yaml do not ship. `make cards`
renders the documents.

`--classes NAME --data-dir DIR` scores weights that are already in the package by class again, and `--temperature NAME
--data-dir DIR` fits their temperature again, on the images that their run held out, so --classes is due after it;
--ship does both.
"""

import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
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
        place(path, row.name, held_out_temperature(row, recipe, path, args.data_dir))
        return 0
    runs = {path: _read(path) for path in args.run_dir}
    ships = _best(runs.values(), read_rows()) if args.ship else []
    for path, row in runs.items():
        if row in ships:
            row = _ship(path, row, args.data_dir)
        else:
            append_row(row)
        print(f"{ACCURACY}: {row.name} {100 * row.top1:.2f} %")
    return 0


def _read(run_dir: Path) -> AccuracyRow:
    row = replace(read_run(run_dir), recipe=recipe_of(run_dir))
    if row.split != "test":
        raise UserError(f"{run_dir} was scored on its {row.split} part; only scores of a test split are accepted")
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
            same = (other.name, other.recipe) == (row.name, row.recipe)
            if same and other.held_out_top1 is not None and row.held_out_top1 is not None and _better(other, row):
                raise UserError(
                    f"{row.name}: the run of seed {other.seed} was better on the held-out images "
                    f"({other.held_out_top1:.2%}, seed {row.seed} {row.held_out_top1:.2%}); ship that run"
                )
    return list(best.values())


def _better(row: AccuracyRow, other: AccuracyRow) -> bool:
    if row.held_out_top1 is None or other.held_out_top1 is None:
        raise UserError(
            f"{row.name}: a run held out no images, and runs must not be compared on the test split; give one run"
        )
    return row.held_out_top1 > other.held_out_top1


def _ship(run_dir: Path, row: AccuracyRow, data_dir: Path) -> AccuracyRow:
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / "model.safetensors"
        write_half(run_dir / "model.safetensors", half)
        temperature = held_out_temperature(row, load_recipe(run_dir / "recipe.yaml"), half, data_dir)
        row, classes = score(row, half, data_dir, temperature)
        _require_floor(row)
        append_row(row)
        place(half, row.name, temperature)
        write_classes(classes)
    return row


def _require_floor(row: AccuracyRow) -> None:
    """Raise UserError if the queue has an entry of this recipe with a higher floor than the row's accuracy."""
    floor = next((entry.floor for entry in read_queue() if entry.recipe == row.recipe), None)
    if floor is not None and 100 * row.top1 < floor:
        raise UserError(
            f"{row.name} has {100 * row.top1:.2f} % of the test images, below the floor of {floor:g} % in "
            f"{QUEUE.name}; without --ship its row is recorded"
        )


if __name__ == "__main__":
    sys.exit(main())
