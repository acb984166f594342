"""What is known of trained weights: the rows of their runs, the recipe, and what they do to each class.

seattn/weights/<name>.json holds it for the weights of the package (`make cards` writes it), results.json in a folder
for the Hub. Shapes: K classes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, load_recipe, parse_recipe
from seattn.core.records import dump, parse, read_json
from seattn.core.rows import AccuracyRow, Conditions
from seattn.evaluation.scoring import ClassScore, Evaluation
from seattn.models._pretrained import WEIGHTS

_LONGEST = 200  # characters of a name


@dataclass(frozen=True)
class ClassResults:
    """What weights, as they ship, do to the images of a split.

    Args:
        seed: of the run they are of, as is `recipe`, the file of `zoo_configs/`.
        sha256: of the weights' file.
        confusion: (K, K), counts images by [true][predicted].
        bins: of 15 equal bins of confidence the count, mean confidence and accuracy.
    """

    name: str
    seed: int
    recipe: str
    sha256: str
    split: str
    class_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    bins: tuple[tuple[int, float, float], ...]
    conditions: Conditions

    def __post_init__(self) -> None:
        k = len(self.class_names)
        if k < 1 or [len(row) for row in self.confusion] != [k] * k:
            raise UserError(f"the confusions of {self.name} are no {k} x {k} table of its classes")

    @property
    def n(self) -> int:
        """Images of the split."""
        return sum(map(sum, self.confusion))

    @property
    def correct(self) -> int:
        """Images of it that are right."""
        return sum(row[i] for i, row in enumerate(self.confusion))

    def per_class(self) -> list[ClassScore]:
        """Precision, recall and F1 of the classes that have images, the lowest recall first."""
        scores = []
        for i, name in enumerate(self.class_names):
            support, right = sum(self.confusion[i]), self.confusion[i][i]
            predicted = sum(row[i] for row in self.confusion)
            if support:
                f1 = 2 * right / (support + predicted)
                scores.append(ClassScore(name, right / predicted if predicted else 0.0, right / support, f1, support))
        return sorted(scores, key=lambda score: score.recall)


@dataclass(frozen=True)
class Facts:
    """Of the weights called `name`: `row` is theirs, `rows` are those of all runs of that name, oldest first.

    `classes` is None where nobody has looked at each class.
    """

    name: str
    row: AccuracyRow
    rows: tuple[AccuracyRow, ...]
    recipe: Recipe
    classes: ClassResults | None = None

    @property
    def of_project(self) -> bool:
        """Whether the weights are this project's, whose recipes have names; else a user's."""
        return bool(self.row.recipe)

    def results(self) -> str:
        """All but the recipe as JSON."""
        return dump({key: value for key, value in asdict(self).items() if key != "recipe"})

    def to_json(self) -> str:
        """As JSON."""
        return dump({**asdict(self), "recipe": self.recipe.to_dict()})


def packaged_facts(name: str) -> Facts:
    """What the package knows of its weights `name`.

    Raises:
        UserError: if there is no such file, or it is damaged.
    """
    path = WEIGHTS / f"{name}.json"
    content = read_json(path)
    recipe = parse_recipe(content.pop("recipe", {}), source=f"{path}, recipe")
    return _facts(content, recipe, path)


def staged_facts(folder: Path) -> Facts:
    """What results.json and recipe.yaml in `folder` say.

    Raises:
        UserError: if one is missing or damaged.
    """
    return _facts(read_json(folder / "results.json"), load_recipe(folder / "recipe.yaml"), folder / "results.json")


def run_facts(run: Path, name: str) -> Facts:
    """What a finished run of `seattn train` or `seattn finetune` says of its weights, which are to be called `name`.

    Raises:
        UserError: if the run is not finished or its files are damaged.
    """
    path = run / "result.json"
    if not path.is_file():
        raise UserError(f"{run} holds no finished run: it has no {path.name}, which `seattn train` writes last")
    row = parse(AccuracyRow, {**read_json(path), "name": name}, path)
    return Facts(name, row, (row,), load_recipe(run / "recipe.yaml"))


def class_results(evaluation: Evaluation, row: AccuracyRow, sha256: str, measured_in: Conditions) -> ClassResults:
    """`evaluation` of the weights of `row` on its split, whose file has that digest."""
    return ClassResults(
        name=row.name,
        seed=row.seed,
        recipe=row.recipe,
        sha256=sha256,
        split=row.split,
        class_names=evaluation.class_names,
        confusion=evaluation.confusion,
        bins=evaluation.bins,
        conditions=measured_in,
    )


def _facts(content: Mapping[str, Any], recipe: Recipe, path: Path) -> Facts:
    row = parse(AccuracyRow, content.get("row"), path)
    rows = content.get("rows")
    rest = {key: value for key, value in content.items() if key not in ("row", "rows", "classes")}
    if set(rest) != {"name"} or not isinstance(rows, list):
        raise UserError(f"{path} must have the keys name, row, rows and classes, it has {', '.join(content) or 'none'}")
    for text in (rest["name"], row.name, row.dataset):
        if not isinstance(text, str) or not text.isprintable() or len(text) > _LONGEST:
            raise UserError(f"{path}: a name or data set must be one line of up to {_LONGEST} characters")
    all_rows = tuple(parse(AccuracyRow, item, path) for item in rows)
    classes = content.get("classes")
    found = None if classes is None else parse(ClassResults, classes, path)
    return Facts(str(rest["name"]), row, all_rows, recipe, found)
