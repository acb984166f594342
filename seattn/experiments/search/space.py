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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial
from pydantic import Field

from seattn.core.errors import UserError
from seattn.core.recipe import Number, Recipe, Seed, load_recipe, parse_recipe, replace_keys
from seattn.core.records import parse, read_yaml

Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["median", "hyperband", "none"]
_Whole = Annotated[int, Field(strict=True)]
_FORM = "{float: [low, high]}, {int: [low, high]} or {choice: [a, b]}"
_MOST_POINTS = 100_000
_HELD_OUT = ("seattn.holdout", "seattn.holdout_seed")


@dataclass(frozen=True)
class FloatRange:
    """{float: [low, high]} of the file, with its options."""

    float: tuple[Number, Number]
    log: bool = False
    step: Number | None = None


@dataclass(frozen=True)
class IntRange:
    """{int: [low, high]} of the file, with its options."""

    int: tuple[_Whole, _Whole]
    log: bool = False
    step: _Whole = 1


@dataclass(frozen=True)
class Choice:
    """{choice: [a, b]} of the file."""

    choice: Annotated[list[Any], Field(min_length=2)]


@dataclass(frozen=True)
class SearchFile:
    """The keys of a search's file."""

    base: str
    space: Annotated[dict[str, Any], Field(min_length=1)]
    set: dict[str, Any] = field(default_factory=dict)
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    seed: Seed = 0


_FORMS: dict[str, type] = {"float": FloatRange, "int": IntRange, "choice": Choice}


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
        """The extreme values: a recipe that accepts these accepts all."""
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


def parse_dimension(raw: object, source: str) -> Dimension:
    """{float: [low, high], log: true}, {int: [low, high], step: 2} or {choice: [a, b]}.

    Raises:
        UserError: naming `source`, and what is wrong.
    """
    kinds = [kind for kind in _FORMS if isinstance(raw, Mapping) and kind in raw]
    if len(kinds) != 1:
        raise UserError(f"{source} must be {_FORM}, got {raw!r}")
    form: Any = parse(_FORMS[kinds[0]], raw, source)
    if isinstance(form, Choice):
        if any(value in form.choice[:i] for i, value in enumerate(form.choice)):
            raise UserError(f"{source}: the values of choice must differ, got {form.choice!r}")
        params = [json.dumps(value) if isinstance(value, list | dict) else value for value in form.choice]
        return Dimension(CategoricalDistribution(params), tuple(form.choice))
    low, high = form.float if isinstance(form, FloatRange) else form.int
    if low >= high:
        raise UserError(f"{source} must be [low, high] with low below high, got {[low, high]}")
    distribution: Any = FloatDistribution if isinstance(form, FloatRange) else IntDistribution
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a step that does not fit is an error below
            values = distribution(low, high, log=form.log, step=form.step)
    except ValueError as error:
        raise UserError(f"{source}: {[low, high]} is not possible: {error}") from error
    if not math.isclose(values.high, high):
        raise UserError(f"{source}: step must divide the {high - low:g} between {low:g} and {high:g}, got {form.step}")
    return Dimension(values)


@dataclass(frozen=True)
class Search:
    """The recipe, the space and the options of a search.

    Args:
        name: the file's name without its suffix.
        recipe: the recipe that all trials change.
        space: the values of each key in which trials differ.
        seed: the seed of the sampler; trials are trained with the recipe's seed.
    """

    name: str
    recipe: Recipe
    space: Mapping[str, Dimension]
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
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
    path: Path, *, sampler: Sampler | None = None, pruner: Pruner | None = None, seed: int | None = None
) -> Search:
    """Read a search file and the recipe that it names; the arguments replace the file's keys.

    Raises:
        UserError: naming the file and the key that is missing, unknown or wrong, or a value that the recipe refuses.
    """
    raw = read_yaml(path, "search", "base: ../se_resnet20_cifar.cifar10.yaml")
    if "model" in raw and "space" not in raw:
        raise UserError(f"{path} is a recipe; a search is a file with base: {path.name} and space: of its keys")
    options = {"sampler": sampler, "pruner": pruner, "seed": seed}
    replaced = {**raw, **{key: value for key, value in options.items() if value is not None}}
    file = parse(SearchFile, {key: value for key, value in replaced.items() if value is not None}, path)
    try:
        recipe = load_recipe(path.parent / file.base, file.set)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    dimensions = {key: _parse_key(path, recipe, key, value) for key, value in file.space.items()}
    _check_apart(path, dimensions, file.set)
    search = Search(path.stem, recipe, dimensions, file.sampler, file.pruner, file.seed)
    if search.sampler == "grid":
        _check_grid(path, search)
    return search


def _parse_key(path: Path, recipe: Recipe, key: str, raw: object) -> Dimension:
    if key in _HELD_OUT:
        raise UserError(f"{path}: space has {key}, but all trials must be scored on the same images; put it into set")
    if key == "seed":
        raise UserError(f"{path}: space has seed, but the best seed is chance; put one seed into set")
    dimension = parse_dimension(raw, f"{path}: space, {key}")
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
