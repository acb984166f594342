"""Rows of accuracy, one for each finished run, in the schema of `seattn.core.rows.AccuracyRow`."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from seattn.core import records
from seattn.core.errors import UserError, did_you_mean
from seattn.core.files import write_text
from seattn.core.recipe import load_recipe
from seattn.core.records import dump, parse, read_json
from seattn.core.rows import AccuracyRow
from seattn.hub.facts import ClassResults

RECIPES = Path(__file__).parents[2] / "zoo_configs"
RESULTS = Path(__file__).parents[1] / "results"
ACCURACY = RESULTS / "accuracy.csv"
CLASSES = RESULTS / "classes"


def read_rows(path: Path = ACCURACY) -> list[AccuracyRow]:
    """All rows of `path`, oldest first; none if there is no such file."""
    return records.read_rows(AccuracyRow, path)


def read_run(run_dir: Path) -> AccuracyRow:
    """The row of a finished run.

    Raises:
        UserError: if the run is not finished or its result is damaged.
    """
    path = run_dir / "result.json"
    if not path.exists():
        raise UserError(f"{run_dir} holds no finished run: it has no {path.name}")
    return parse(AccuracyRow, read_json(path), path)


def recipe_of(run_dir: Path, recipes: Path = RECIPES) -> str:
    """The name of the file in `recipes` that the run followed, with any seed.

    Raises:
        UserError: if the run's recipe cannot be read, or is not one of those.
    """
    ran = load_recipe(run_dir / "recipe.yaml")
    for path in sorted(recipes.glob(f"{ran.model}*.yaml")):
        if replace(load_recipe(path), seed=ran.seed) == ran:
            return path.stem
    raise UserError(f"{run_dir} followed no recipe of {recipes}; put its recipe.yaml there under a new name")


def read_classes(name: str, folder: Path = CLASSES) -> ClassResults | None:
    """The results of the shipped weights `name` by class; None where there are none yet."""
    path = folder / f"{name}.json"
    return parse(ClassResults, read_json(path), path) if path.exists() else None


def write_classes(classes: ClassResults, folder: Path = CLASSES) -> None:
    """Write `folder`/<name>.json; the file of earlier weights is replaced."""
    write_text(folder / f"{classes.name}.json", dump(asdict(classes)))


def shipped_row(name: str, rows: Sequence[AccuracyRow], classes: ClassResults | None) -> AccuracyRow:
    """The row of the shipped weights `name`: the newest of the run that `classes` describes, or the newest of all.

    Raises:
        UserError: if there is no such row.
    """
    candidates = [row for row in rows if row.name == name]
    if not candidates:
        near = did_you_mean(name, sorted({row.name for row in rows}))
        raise UserError(f"{ACCURACY} has no row of the weights {name}; {near}")
    if classes is not None:
        candidates = [row for row in candidates if (row.seed, row.recipe) == (classes.seed, classes.recipe)]
    if not candidates:
        raise UserError(f"{ACCURACY} has no row of the run of {name}; `python -m benchmarks.record --ship` adds it")
    return candidates[-1]


def append_row(row: AccuracyRow, path: Path = ACCURACY) -> None:
    """Append `row` to `path`.

    Raises:
        UserError: if the file has it already.
    """
    if row in read_rows(path):
        raise UserError(f"{path} already has this row of {row.name}")
    records.append_rows(AccuracyRow, path, [row])
