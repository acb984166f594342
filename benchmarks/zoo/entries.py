"""The entries of the queue: what to train, on which images, and what the weights must reach."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import timm
from pydantic import AfterValidator, Field

from benchmarks.evidence.known_classes import check_known
from benchmarks.evidence.rows import read_rows
from seattn.core.errors import UserError, did_you_mean
from seattn.core.files import is_one_line
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.recipe.keys import CountFromOne, Seed
from seattn.core.records import parse, read_yaml
from seattn.core.rows import AccuracyRow
from seattn.data.folders.classes import class_folders
from seattn.data.folders.splits import find_split, require_split
from seattn.data.images import cifar_folder, cifar_place
from seattn.models._datasets import DATASETS
from seattn.models.listing import check_name

CONFIGS = Path(__file__).resolve().parents[2] / "zoo_configs"
QUEUE = CONFIGS / "queue.yaml"
_CIFAR = {"cifar-10-batches-py": "cifar10", "cifar-100-python": "cifar100"}


def _plain(name: str) -> str:
    if name in ("", "..") or name != Path(name).name or name.endswith(".yaml") or not is_one_line(name):
        raise ValueError(f"recipe must be the name of a file of zoo_configs, without folder and suffix, got {name!r}")
    return name


def _per_cent(floor: float) -> float:
    if not 1 < floor <= 100:
        raise ValueError(f"floor must be in per cent, above 1 and at most 100, got {floor:g}")
    return floor


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

    recipe: Annotated[str, AfterValidator(_plain)]
    seed: Seed
    data: str
    holdout: Annotated[float, Field(ge=0, lt=1)]
    floor: Annotated[float, AfterValidator(_per_cent)] | None
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
    content = read_yaml(path, "queue", example)
    for key in content:
        if key != "entries":
            raise UserError(f"queue {path}: unknown key {key!r}; its only key is 'entries'")
    items = content.get("entries")
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
    if not entry.path.exists():
        near = did_you_mean(entry.recipe, (path.stem for path in sorted(CONFIGS.glob("*.*.yaml"))))
        raise UserError(f"queue entry {entry.name}: there is no recipe {entry.path}; {near}")
    try:
        check_name(entry.resolved.model)
    except UserError as error:
        raise UserError(f"queue entry {entry.name}: {error}") from error


def check_data(entry: Entry, data: Path) -> None:
    """Refuse an entry whose images are not in `data`, or have other classes than its recipe's net.

    Raises:
        UserError: if it is so.
    """
    try:
        _check_classes(entry.resolved, data / entry.data)
    except UserError as error:
        raise UserError(f"queue entry {entry.name}: {error}") from error


def _check_classes(recipe: Recipe, folder: Path) -> None:
    for split in ("train", "test"):
        require_split(folder, split)
    files = cifar_folder(folder)
    if files is None:
        names = class_folders(find_split(folder, "train"))
    else:
        names = DATASETS[_CIFAR[cifar_place(folder / files).name]].label_names
    cfg = timm.get_pretrained_cfg(recipe.model)
    classes = recipe.num_classes or (cfg and cfg.num_classes) or len(names)
    if len(names) != classes:
        raise UserError(f"{folder} has {len(names)} classes, the recipe has num_classes {classes}")
    check_known(folder, names, recipe.model)
