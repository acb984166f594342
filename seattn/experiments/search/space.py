"""The YAML file of a search: a base recipe, and the values that its keys may take.

The files of `zoo_configs/searches/` have these keys:

base      the path of a recipe, from the file's folder
set       optional: recipe keys that all trials replace
space     a recipe key (dotted below `seattn` and `model_kwargs`) and its values: {float: [low, high]} or
          {int: [low, high]}, both optionally with `log: true` or `step: STEP`; or {choice: [a, b]}
sampler, pruner, seed     optional: options of the search, which the command line replaces
"""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from seattn.core.errors import UserError, did_you_mean
from seattn.core.recipe import Recipe, load_recipe, one_of, parse_recipe, replace_keys
from seattn.core.records import read_yaml

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "hyperband", "none")
_KEYS = ("base", "set", "space", "sampler", "pruner", "seed")
_OPTIONS = {"float": ("log", "step"), "int": ("log", "step"), "choice": ()}
_FORM = "{float: [low, high]}, {int: [low, high]} or {choice: [a, b]}"
_MOST_POINTS = 100_000
_HELD_OUT = ("seattn.holdout", "seattn.holdout_seed")


@dataclass(frozen=True)
class Dimension:
    """The values that one recipe key may take.

    Args:
        distribution: Optuna's description; choices that are lists or mappings are JSON text in it.
        values: the choices as a recipe takes them; empty for numbers.
    """

    distribution: FloatDistribution | IntDistribution | CategoricalDistribution
    values: tuple[Any, ...] = ()

    def suggest(self, trial: Trial, key: str) -> None:
        """Let the study's sampler choose a value, which is then in `trial.params[key]`."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            trial.suggest_categorical(key, d.choices)
        elif isinstance(d, IntDistribution):
            trial.suggest_int(key, d.low, d.high, log=d.log, step=d.step)
        else:
            trial.suggest_float(key, d.low, d.high, log=d.log, step=d.step)

    def value(self, param: Any) -> Any:
        """The value for the recipe, for a value in a trial's params."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.values[self.distribution.choices.index(param)]
        return param

    def ends(self) -> tuple[Any, ...]:
        """Params that a recipe must accept for it to accept all values."""
        d = self.distribution
        return tuple(d.choices) if isinstance(d, CategoricalDistribution) else (d.low, d.high)

    def count(self) -> float:
        """The number of values; inf for floats without a step."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return len(d.choices)
        return math.inf if d.step is None else round((d.high - d.low) / d.step) + 1

    def __str__(self) -> str:
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return "one of " + ", ".join(map(str, d.choices))
        default_step = 1 if isinstance(d, IntDistribution) else None
        step = "" if d.step == default_step else f" in steps of {d.step:g}"
        return f"{d.low:g} to {d.high:g}{step}{', log' if d.log else ''}"


def parse_dimension(raw: object) -> Dimension:
    """{float: [low, high], log: true}, {int: [low, high], step: 2} or {choice: [a, b]}.

    Raises:
        UserError: saying what is wrong; the caller adds the key.
    """
    kinds = [kind for kind in _OPTIONS if isinstance(raw, Mapping) and kind in raw]
    if len(kinds) != 1 or not isinstance(raw, Mapping):
        raise UserError(f"must be {_FORM}, got {raw!r}")
    kind = kinds[0]
    for option in raw:
        if option not in (kind, *_OPTIONS[kind]):
            raise UserError(f"unknown key {option!r}; {did_you_mean(str(option), (kind, *_OPTIONS[kind]))}")
    if kind == "choice":
        return _parse_choice(raw["choice"])
    return _parse_range(raw[kind], raw.get("log", False), raw.get("step"), whole=kind == "int")


def _parse_choice(values: object) -> Dimension:
    if not isinstance(values, list) or len(values) < 2:
        raise UserError(f"choice must be a list of two or more values, got {values!r}")
    if any(value in values[:i] for i, value in enumerate(values)):
        raise UserError(f"the values of choice must differ, got {values!r}")
    params = [json.dumps(value) if isinstance(value, list | dict) else value for value in values]
    return Dimension(CategoricalDistribution(params), tuple(values))


def _parse_range(bounds: object, log: object, step: object, *, whole: bool) -> Dimension:
    kind = "int" if whole else "float"
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise UserError(f"{kind} must be [low, high], got {bounds!r}")
    if not isinstance(log, bool):
        raise UserError(f"log must be true or false, got {log!r}")
    low, high = (_parse_number(bound, whole=whole) for bound in bounds)
    width = None if step is None else _parse_number(step, whole=whole)
    distribution: FloatDistribution | IntDistribution
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a step that does not fit is an error below
            if whole:
                distribution = IntDistribution(int(low), int(high), log=log, step=1 if width is None else int(width))
            else:
                distribution = FloatDistribution(low, high, log=log, step=width)
    except ValueError as error:
        raise UserError(f"{kind} {bounds!r} is not possible: {error}") from error
    if not math.isclose(distribution.high, high):
        raise UserError(f"step must divide the {high - low:g} between {low:g} and {high:g}, got {step!r}")
    if distribution.single():
        raise UserError(f"{kind} must be [low, high] with low below high, got {bounds!r}")
    return Dimension(distribution)


def _parse_number(value: object, *, whole: bool) -> float:
    """`value` as a number; text too, because YAML 1.1 reads 1e-4, without a dot, as text."""
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (whole and not number.is_integer()):
        raise UserError(f"{value!r} is not a {'whole' if whole else 'finite'} number")
    return number


@dataclass(frozen=True)
class Search:
    """The recipe, the space and the options of a search.

    Args:
        name: the file's name without its suffix.
        recipe: the recipe that all trials change.
        space: the values of each key in which trials differ.
        sampler: "tpe", "random" or "grid".
        pruner: "median", "hyperband" or "none".
        seed: the seed of the sampler; trials are trained with the recipe's seed.
    """

    name: str
    recipe: Recipe
    space: Mapping[str, Dimension]
    sampler: str = "tpe"
    pruner: str = "median"
    seed: int = 0

    def recipe_of(self, params: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial with these params.

        Raises:
            UserError: if the values exclude each other.
        """
        values = {key: self.space[key].value(param) for key, param in params.items()}
        return parse_recipe(replace_keys(self.recipe.to_dict(), values))

    def points(self) -> float:
        """The number of different trials; inf where a key takes any number."""
        return math.prod(dimension.count() for dimension in self.space.values())


def load_search(
    path: Path, *, sampler: str | None = None, pruner: str | None = None, seed: int | None = None
) -> Search:
    """Read a search file and the recipe that it names; the arguments replace the file's keys.

    Raises:
        UserError: naming the file and the key that is missing, unknown or wrong, or a value that the recipe refuses.
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
            raise UserError(f"{path}: {key} must map recipe keys to values, got {value!r}")
    try:
        recipe = load_recipe(path.parent / str(raw["base"]), shared)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    dimensions = {str(key): _parse_key(path, recipe, str(key), value) for key, value in space.items()}
    _check_apart(path, dimensions, shared)
    search = Search(
        path.stem,
        recipe,
        dimensions,
        sampler=sampler or raw.get("sampler", "tpe"),
        pruner=pruner or raw.get("pruner", "median"),
        seed=raw.get("seed", 0) if seed is None else seed,
    )
    one_of("sampler", search.sampler, SAMPLERS)
    one_of("pruner", search.pruner, PRUNERS)
    if type(search.seed) is not int or search.seed < 0:
        raise UserError(f"{path}: seed must be a whole number from 0, got {search.seed!r}")
    if search.sampler == "grid":
        _check_grid(path, search)
    return search


def _parse_key(path: Path, recipe: Recipe, key: str, raw: object) -> Dimension:
    if key in _HELD_OUT:
        raise UserError(f"{path}: space has {key}, but all trials must be scored on the same images; put it into set")
    if key == "seed":
        raise UserError(f"{path}: space has seed, whose best value is luck; put one seed into set")
    try:
        dimension = parse_dimension(raw)
    except UserError as error:
        raise UserError(f"{path}: space, {key}: {error}") from error
    for param in dimension.ends():
        parse_recipe(replace_keys(recipe.to_dict(), {key: dimension.value(param)}), source=f"{path}, space")
    return dimension


def _check_apart(path: Path, space: Mapping[str, Dimension], shared: Mapping[str, Any]) -> None:
    for key in space:
        for other in (*shared, *space):
            if (key == other and other in shared) or key.startswith(f"{other}.") or other.startswith(f"{key}."):
                raise UserError(f"{path}: {key} in space and {other} replace the same key; omit one of them")


def _check_grid(path: Path, search: Search) -> None:
    for key, dimension in search.space.items():
        if math.isinf(dimension.count()):
            raise UserError(f"{path}: a grid needs a finite number of values; give {key} a step, or use choice")
    if search.points() > _MOST_POINTS:
        raise UserError(f"{path}: a grid of {search.points():,} points is too large; take larger steps or sampler tpe")
