"""The facts about trained weights: the rows of their runs, the recipe, and the results of each class.

For weights of the package the facts are in `models/weights/<name>.json`, which `make cards` writes; in a folder for the
Hub they are in `results.json` and `recipe.yaml`. Shapes: K classes.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from timm import is_model

from seattn.core.errors import UserError
from seattn.core.files import is_one_line
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.records import dump, parse, read_json
from seattn.core.rows import AccuracyRow, Conditions
from seattn.evaluation.scoring import ClassCounts
from seattn.models._pretrained import WEIGHTS

_LONGEST = 200  # characters of a name


@dataclass(frozen=True)
class ClassResults(ClassCounts):
    """The predictions of weights, as they ship, on the images of a split, counted by class.

    Args:
        seed: seed of the run that the weights are from.
        recipe: the run's recipe, a file of `zoo_configs/` without its suffix.
        sha256: digest of the weights' file.
        bins: count, mean confidence and accuracy for each of 15 equal bins of confidence, without a temperature.
        temperature: that of the weights; None if they have none.
        calibrated_ece: the expected calibration error with that temperature; None without one.
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
    temperature: float | None = None
    calibrated_ece: float | None = None

    def __post_init__(self) -> None:
        k = len(self.class_names)
        if k < 1 or [len(row) for row in self.confusion] != [k] * k:
            raise UserError(f"the confusion matrix of {self.name} must be {k} x {k}, one row for each class")

    @property
    def n(self) -> int:
        """Number of images in the split."""
        return sum(map(sum, self.confusion))

    @property
    def correct(self) -> int:
        """Number of images with a correct prediction."""
        return sum(row[i] for i, row in enumerate(self.confusion))


@dataclass(frozen=True)
class Facts:
    """All facts about trained weights.

    Args:
        name: name of the weights.
        row: row of the weights.
        rows: rows of all runs of that name, and of the same net with other attention or none, oldest first.
        recipe: the recipe of their training.
        classes: results of each class; None if they were not counted.
    """

    name: str
    row: AccuracyRow
    rows: tuple[AccuracyRow, ...]
    recipe: Recipe
    classes: ClassResults | None = None

    def __post_init__(self) -> None:
        for text in (self.name, self.row.name, self.row.dataset):
            if not is_one_line(text) or len(text) > _LONGEST:
                raise UserError(f"a name or data set must be one line of at most {_LONGEST} characters")

    @property
    def of_project(self) -> bool:
        """Whether this project trained the weights: its recipes have names, those of users do not."""
        return bool(self.row.recipe)

    def results(self) -> str:
        """All but the recipe as JSON."""
        return dump({key: value for key, value in asdict(self).items() if key != "recipe"})

    def to_json(self) -> str:
        """All facts as JSON."""
        return dump({**asdict(self), "recipe": self.recipe.to_dict()})


def packaged_facts(name: str) -> Facts:
    """The facts of the package's weights `name`.

    Raises:
        UserError: if their file is missing or damaged.
    """
    path = WEIGHTS / f"{name}.json"
    return parse(Facts, read_json(path), path)


def staged_facts(folder: Path) -> Facts:
    """The facts in results.json and recipe.yaml of a folder for the Hub.

    Raises:
        UserError: if a file is missing or damaged.
    """
    path = folder / "results.json"
    recipe = load_recipe(folder / "recipe.yaml")
    return parse(Facts, {**read_json(path), "recipe": recipe.to_dict()}, path)


def run_facts(run: Path, name: str) -> Facts:
    """The facts of the weights of a finished run, which get the name `name`.

    Raises:
        UserError: if the run is not finished or its files are damaged, or if the name is that of another net.
    """
    path = run / "result.json"
    if not path.is_file():
        raise UserError(f"{run} holds no finished run: it has no {path.name}, which `seattn train` writes last")
    row = parse(AccuracyRow, {**read_json(path), "name": name}, path)
    recipe = load_recipe(run / "recipe.yaml")
    arch = name.split(".")[0]
    if is_model(arch) and arch != recipe.model.split(".")[0]:
        raise UserError(f"the net in {run} is {recipe.model}, so its weights cannot be named {name}")
    return Facts(name, row, (row,), recipe)
