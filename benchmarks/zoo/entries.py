"""The entries of the queue: what to train, on which images, and what the weights must reach."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.evidence.rows import read_rows
from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.recipe.keys import CountFromOne
from seattn.core.records import parse, read_yaml
from seattn.core.rows import AccuracyRow
from seattn.data.folders.classes import class_folders
from seattn.data.folders.splits import find_split, require_split
from seattn.data.images import cifar_folder
from seattn.models.listing import check_name

CONFIGS = Path(__file__).resolve().parents[2] / "zoo_configs"
QUEUE = CONFIGS / "queue.yaml"
_CIFAR_CLASSES = {"cifar-10-batches-py": 10, "cifar-100-python": 100}


@dataclass(frozen=True)
class Entry:
    """One training of the queue.

    Args:
        recipe: a file of `zoo_configs/` without its suffix.
        data: the folder in --data that holds its images.
        holdout: the part of the train split to hold out; 0 trains on all images.
        floor: the test top-1, in per cent, from which the weights may be published; None: they are not published.
        cores: the most threads that the training may use. Runs side by side with one thread each train more images a
            second in total; a large net with all cores is finished first.
    """

    recipe: str
    seed: int
    data: str
    holdout: float
    floor: float | None
    cores: CountFromOne = 1

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"{self.recipe}-s{self.seed}" + ("" if self.holdout == 0 else f"-h{self.holdout:g}")

    @property
    def path(self) -> Path:
        """The file of the recipe."""
        return CONFIGS / f"{self.recipe}.yaml"

    # Both are read once: a queue that trains for days must not depend on files that are edited meanwhile.

    @cached_property
    def resolved(self) -> Recipe:
        """The recipe with this entry's seed and part held out."""
        return load_recipe(self.path, {"seed": self.seed, "seattn.holdout": self.holdout})

    @cached_property
    def on_record(self) -> AccuracyRow | None:
        """The row that benchmarks/results has of such a run."""
        if self.resolved != load_recipe(self.path, {"seed": self.seed}):
            return None  # rows are of runs that hold out what their recipe says
        return next((row for row in read_rows() if (row.recipe, row.seed) == (self.recipe, self.seed)), None)


def read_queue(path: Path = QUEUE) -> tuple[Entry, ...]:
    """The entries of a queue file.

    Raises:
        UserError: naming the entry and the key that is unknown, missing or of the wrong type.
    """
    example = "entries: [{recipe: se_resnet18_cifar.cifar10.zoo, seed: 0, data: cifar10, holdout: 0, floor: 95}]"
    items = read_yaml(path, "queue", example).get("entries")
    if not isinstance(items, list) or not items:
        raise UserError(f"queue {path} must have a list of entries, for example {example!r}")
    entries = tuple(parse(Entry, item, f"{path}, entry {number}") for number, item in enumerate(items, 1))
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: the entry {name} occurs more than once; give each its own seed")
    return entries


def check_recipe(entry: Entry) -> None:
    """Refuse an entry whose recipe is missing or wrong, or names no net.

    Raises:
        UserError: if it is so.
    """
    try:
        check_name(entry.resolved.model)
    except UserError as error:
        raise UserError(f"queue entry {entry.name}: {error}") from error


def check_data(entry: Entry, data: Path) -> None:
    """Refuse an entry whose images are not in `data`, or have another number of classes than its recipe says.

    Raises:
        UserError: if it is so.
    """
    folder = data / entry.data
    for split in ("train", "test"):
        require_split(folder, split)
    files = cifar_folder(folder)
    if files is None:
        classes = len(class_folders(find_split(folder, "train")))
    else:
        classes = _CIFAR_CLASSES[(folder / files).resolve().name]
    if entry.resolved.num_classes not in (None, classes):
        raise UserError(
            f"queue entry {entry.name}: {folder} has {classes} classes, the recipe has num_classes "
            f"{entry.resolved.num_classes}"
        )
