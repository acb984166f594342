"""A search as its YAML file says it: a base recipe, what is shared, and the values that each key may take.

The YAML of `zoo_configs/searches/` has these keys: `base`, a recipe's path beside the file; `set`, which may be left
away, the recipe keys that all trials replace; `space`, a recipe key (dotted below `seattn` and `model_kwargs`) and its
values, {float: [low, high]} or {int: [low, high]}, both with `log: true` or `step:`, or {choice: [a, b]}; and, for the
command line to replace, `sampler`, `pruner` and `seed`.

The values that one recipe key may take in a search: numbers in a range, or choices.
"""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seattn.core.errors import UserError

if TYPE_CHECKING:
    from optuna.trial import Trial
import itertools
from pathlib import Path

from seattn.core.recipe import Recipe, load_recipe, one_of, parse_recipe, replace_keys
from seattn.core.records import read_yaml

_FORM = "{float: [low, high]}, {int: [low, high]} or {choice: [a, b]}"
_OPTIONS = {"float": ("log", "step"), "int": ("log", "step"), "choice": ()}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where `whole`.

    Args:
        log: drawn evenly over the logarithm.
        step: only `low`, `low + step`, …; None: any, or any whole one.
    """

    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    def suggest(self, trial: "Trial", key: str) -> Any:
        """A value for the recipe, which the study keeps for `key`."""
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)

    def ends(self) -> tuple[Any, ...]:
        """What a recipe must take for it to take everything between, as the study keeps it."""
        return self.low, self.high

    def grid(self) -> tuple[Any, ...] | None:
        """All values as the study keeps them; None if they cannot be counted."""
        step = self.step or (1 if self.whole else None)
        if step is None:
            return None
        count = round((self.high - self.low) / step) + 1
        return tuple(min(self.low + i * step, self.high) for i in range(count))

    def value(self, kept: Any) -> Any:
        """The recipe's value for what the study keeps."""
        return kept

    def __str__(self) -> str:
        step = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.low:g} to {self.high:g}{step}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of `values`, which may be anything that a recipe takes."""

    values: tuple[Any, ...]

    def _kept(self) -> tuple[Any, ...]:
        """What a study can keep: lists and mappings as JSON."""
        return tuple(json.dumps(value) if isinstance(value, list | dict) else value for value in self.values)

    def suggest(self, trial: "Trial", key: str) -> Any:
        """As `Range.suggest`."""
        return self.value(trial.suggest_categorical(key, self._kept()))

    def ends(self) -> tuple[Any, ...]:
        """As `Range.ends`."""
        return self._kept()

    def grid(self) -> tuple[Any, ...]:
        """As `Range.grid`."""
        return self._kept()

    def value(self, kept: Any) -> Any:
        """As `Range.value`."""
        return self.values[self._kept().index(kept)]

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self._kept()))


Dimension = Range | Choice


def parse_dimension(raw: object) -> Dimension:
    """{float: [low, high], log: true}, {int: [low, high], step: 2} or {choice: [a, b]}.

    Raises:
        UserError: saying what is wrong, without the key, which the caller knows.
    """
    kinds = [kind for kind in _OPTIONS if isinstance(raw, Mapping) and kind in raw]
    if len(kinds) != 1 or not isinstance(raw, Mapping):
        raise UserError(f"must be {_FORM}, got {raw!r}")
    kind = kinds[0]
    for option in raw:
        if option != kind and option not in _OPTIONS[kind]:
            near = difflib.get_close_matches(str(option), _OPTIONS[kind], n=1)
            known = (
                f"did you mean {near[0]!r}?" if near else f"{kind} takes {' and '.join(_OPTIONS[kind]) or 'no other'}"
            )
            raise UserError(f"unknown key {option!r}; {known}")
    if kind == "choice":
        return _choice(raw["choice"])
    return _range(raw[kind], raw.get("log", False), raw.get("step"), whole=kind == "int")


def _choice(values: object) -> Choice:
    if not isinstance(values, list) or len(values) < 2:
        raise UserError(f"choice must be a list of two values or more, got {values!r}")
    if any(value in values[:i] for i, value in enumerate(values)):
        raise UserError(f"the values of choice must differ, got {values!r}")
    return Choice(tuple(values))


def _range(bounds: object, log: object, step: object, *, whole: bool) -> Range:
    kind = "int" if whole else "float"
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise UserError(f"{kind} must be [low, high], got {bounds!r}")
    low, high = (_number(bound, whole=whole) for bound in bounds)
    if low >= high:
        raise UserError(f"{kind} must be [low, high] with low below high, got {bounds!r}")
    if not isinstance(log, bool):
        raise UserError(f"log must be true or false, got {log!r}")
    if log and low <= 0:
        raise UserError(f"log needs a lower bound above 0, got {bounds!r}")
    if log and step is not None:
        raise UserError("log and step exclude each other; leave one away")
    if step is None:
        return Range(low, high, log, None, whole)
    width = _number(step, whole=whole)
    count = (high - low) / width if width > 0 else math.nan
    if not (count >= 1 and math.isclose(count, round(count), rel_tol=1e-6)):
        raise UserError(f"step must divide the {high - low:g} between {low:g} and {high:g}, got {step!r}")
    return Range(low, high, log, width, whole)


def _number(value: object, *, whole: bool) -> float:
    """`value` as int or float; text too, as YAML 1.1 takes 1e-4, without a dot, for text."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
        if whole and not number.is_integer():
            raise ValueError
        if not math.isfinite(number):
            raise ValueError
    except ValueError:
        raise UserError(f"{value!r} is not a {'whole' if whole else 'finite'} number") from None
    return int(number) if whole else number


SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "hyperband", "none")
_KEYS = ("base", "set", "space", "sampler", "pruner", "seed")
_MOST_POINTS = 100_000
_JUDGES = "seattn.holdout", "seattn.holdout_seed"


@dataclass(frozen=True)
class Search:
    """What to search.

    Args:
        name: the file's, without its suffix.
        recipe: what all trials change.
        space: the values of each key that trials differ in.
        sampler: "tpe", "random" or "grid".
        pruner: "median", "hyperband" or "none".
        seed: of the sampler; the trials' own is the recipe's.
    """

    name: str
    recipe: Recipe
    space: Mapping[str, Dimension]
    sampler: str = "tpe"
    pruner: str = "median"
    seed: int = 0

    def recipe_of(self, params: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial for which the study keeps `params`.

        Raises:
            UserError: if these values do not go together.
        """
        values = {key: self.space[key].value(kept) for key, kept in params.items()}
        return parse_recipe(replace_keys(self.recipe.to_dict(), values))


def load_search(
    path: Path, *, sampler: str | None = None, pruner: str | None = None, seed: int | None = None
) -> Search:
    """Read `path` and the recipe that it names; what is given replaces what the file says.

    Raises:
        UserError: naming the file and what is missing, unknown or wrong in it, bounds that the recipe refuses included.
    """
    raw = read_yaml(path, "search", "base: ../se_resnet20_cifar.cifar10.yaml")
    if "model" in raw and "space" not in raw:
        raise UserError(f"{path} is a recipe; a search is a file with base: {path.name} and space: of its keys")
    for key in raw:
        if key not in _KEYS:
            raise UserError(f"{path}: unknown key {key!r}; known: {', '.join(_KEYS)}")
    for key in ("base", "space"):
        if not raw.get(key):
            raise UserError(f"{path}: the key {key!r} is missing or empty")
    shared, space = raw.get("set") or {}, raw["space"]
    for key, value in (("set", shared), ("space", space)):
        if not isinstance(value, dict):
            raise UserError(f"{path}: {key} must map recipe keys, got {value!r}")
    base = path.parent / str(raw["base"])
    try:
        recipe = load_recipe(base, shared)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    dimensions = {str(key): _dimension(path, recipe, str(key), value) for key, value in space.items()}
    _check_apart(path, dimensions, shared)
    chosen: dict[str, Any] = {
        "sampler": sampler or raw.get("sampler", "tpe"),
        "pruner": pruner or raw.get("pruner", "median"),
        "seed": raw.get("seed", 0) if seed is None else seed,
    }
    one_of("sampler", chosen["sampler"], SAMPLERS)
    one_of("pruner", chosen["pruner"], PRUNERS)
    if type(chosen["seed"]) is not int or chosen["seed"] < 0:
        raise UserError(f"{path}: seed must be a whole number from 0, got {chosen['seed']!r}")
    if chosen["sampler"] == "grid":
        _check_grid(path, dimensions)
    return Search(path.stem, recipe, dimensions, **chosen)


def _dimension(path: Path, recipe: Recipe, key: str, raw: object) -> Dimension:
    if key in _JUDGES:
        raise UserError(f"{path}: space has {key}, but all trials must be judged on the same images; put it into set")
    if key == "seed":
        raise UserError(f"{path}: space has seed, whose best value is luck; put one into set")
    try:
        dimension = parse_dimension(raw)
    except UserError as error:
        raise UserError(f"{path}: space, {key}: {error}") from error
    for kept in dimension.ends():
        parse_recipe(replace_keys(recipe.to_dict(), {key: dimension.value(kept)}), source=f"{path}, space")
    return dimension


def _check_apart(path: Path, space: Mapping[str, Dimension], shared: Mapping[str, Any]) -> None:
    for key in space:
        for other in (*shared, *space):
            if (key == other and other in shared) or key.startswith(f"{other}.") or other.startswith(f"{key}."):
                raise UserError(f"{path}: {key} in space and {other} replace the same key; leave one away")


def _check_grid(path: Path, space: Mapping[str, Dimension]) -> None:
    points = 1
    for key, dimension in space.items():
        values = dimension.grid()
        if values is None:
            raise UserError(f"{path}: a grid needs values to count; give {key} a step, or choice instead of float")
        points *= len(values)
    if points > _MOST_POINTS:
        raise UserError(f"{path}: a grid of {points:,} points is beyond reach; take larger steps, or sampler tpe")


def grid_points(search: Search) -> list[tuple[Any, ...]]:
    """Every point of the grid over the space, values as the study keeps them and in the order of its keys."""
    return list(itertools.product(*(dimension.grid() or () for dimension in search.space.values())))
