"""What a report reads of a run's folder: the resolved recipe, the log of epochs, the result; not yet the weights."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dacite

from seattn._history import Row, shipped
from seattn.core.errors import UserError, first_line
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.rows import AccuracyRow
from seattn.models.load import CONFIG, WEIGHTS
from seattn.training.run_dir import read_summary

COLUMNS = ("epoch", "train_loss", "eval_loss", "eval_top1", "lr")  # of summary.csv, which has more
_VALUES = ("seattn.class_weights",)  # keys whose value may be a mapping, and is one value all the same


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """One run; `history` has an epoch a row, `result` is None until the run is finished."""

    path: Path
    recipe: Recipe
    history: tuple[Row, ...]
    result: AccuracyRow | None
    has_weights: bool

    @property
    def name(self) -> str:
        """The folder's."""
        return self.path.resolve().name

    @property
    def planned(self) -> int:
        """Epochs that the recipe asks for."""
        return self.recipe.run_epochs

    @property
    def exported(self) -> Row | None:
        """The epoch whose weights the run left, if it left some."""
        return shipped(self.history, self.recipe.seattn.early_stop) if self.has_weights else None

    @property
    def seconds(self) -> float | None:
        """Spent in training steps; None where the log does not say."""
        times = [row["train_seconds"] for row in self.history if "train_seconds" in row]
        return sum(times) if len(times) == len(self.history) else None


def read_run(path: Path) -> FinishedRun:
    """The run in the folder `path`, finished or not.

    Raises:
        UserError: naming the file that is missing or damaged.
    """
    if not path.is_dir():
        raise UserError(f"no such run folder: {path}; give what `seattn train` or `seattn finetune` has as --out")
    if not (path / "recipe.yaml").is_file():
        raise UserError(f"{path} has no recipe.yaml: it is no folder of `seattn train` or `seattn finetune`")
    recipe = load_recipe(path / "recipe.yaml")
    has_weights = (path / WEIGHTS).is_file() and (path / CONFIG).is_file()
    return FinishedRun(path, recipe, _history(path / "summary.csv"), _result(path / "result.json"), has_weights)


def _history(path: Path) -> tuple[Row, ...]:
    history = read_summary(path.parent)
    if not history:
        raise UserError(f"{path} has no epoch: the run has not finished its first epoch, or this is not its log")
    missing = [name for name in COLUMNS if name not in history[0]]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}; it should be the log of `seattn train`")
    return tuple(history)


def _result(path: Path) -> AccuracyRow | None:
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return dacite.from_dict(AccuracyRow, raw, dacite.Config(cast=[float]))
    except (OSError, ValueError, TypeError, AttributeError, dacite.DaciteError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}; it should be the result of `seattn train`") from error


def differences(recipes: list[Recipe]) -> dict[str, list[Any]]:
    """The keys in which recipes differ, dotted, with the value of each; seeds do not count."""
    flat = [dict(_flat(recipe.to_dict())) for recipe in recipes]
    keys = list(dict.fromkeys(key for one in flat for key in one if key != "seed"))
    values = {key: [one.get(key) for one in flat] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def changed_keys(recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe that differ from their defaults, dotted."""
    plain = dict(_flat(Recipe(model=recipe.model, lr=recipe.lr).to_dict()))
    own = dict(_flat(recipe.to_dict()))
    return {key: value for key, value in own.items() if key in ("model", "lr", "seed") or value != plain.get(key)}


def _flat(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        if isinstance(value, dict) and prefix + key not in _VALUES:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
