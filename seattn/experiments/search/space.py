"""A search as its YAML file says it: a base recipe, what is shared, and the values that each key may take.

The YAML of `zoo_configs/searches/` has these keys: `base`, a recipe's path beside the file; `set`, which may be left
away, the recipe keys that all trials replace; `space`, a recipe key (dotted below `seattn` and `model_kwargs`) and its
values, {float: [low, high]} or {int: [low, high]}, both with `log: true` or `step:`, or {choice: [a, b]}; and, for the
command line to replace, `sampler`, `pruner` and `seed`.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seattn._our_keys import one_of
from seattn._search_space import Dimension, parse_dimension
from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, load_recipe, parse_recipe, read_mapping, replace_keys

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
    raw = read_mapping(path, "search", "base: ../se_resnet20_cifar.cifar10.yaml")
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
