"""The YAML file of a study: one base recipe, the keys that each variant changes, and the seeds of the runs.

The files of `zoo_configs/ablations/` have these keys:

base       the path of a recipe, from the file's folder
set        optional: recipe keys that the whole study replaces; dotted keys name keys below `seattn` and `model_kwargs`
seeds      a list of whole numbers
variants   a name, and the recipe keys that this variant replaces beyond those of `set`; the first is the reference
factors    in place of variants: a name, and its levels, each with the recipe keys that it replaces; the first level is
           the factor's reference:
             se: {yes: {}, no: {model: resnet20_cifar.cifar10}}
             augmentation: {yes: {}, no: {seattn.crop_padding: 0, hflip: 0.0}}
design     with factors: `full`, every combination of levels; or `one_removed`, one level at a time off its reference
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, load_recipe, parse_recipe
from seattn.core.records import read_yaml

DESIGNS = ("full", "one_removed")
_KEYS = ("base", "seeds", "variants", "set", "factors", "design")
Changes = dict[str, Any]


@dataclass(frozen=True)
class Effect:
    """A main effect: a level against the first level of its factor.

    Args:
        name: names the two levels.
        pairs: variants that differ in this factor only: one with the level, one with the first level.
    """

    name: str
    pairs: tuple[tuple[str, str], ...]


def label(name: object) -> str:
    """A name in the YAML file as text; YAML reads `yes` and `no` as truth values."""
    return {True: "yes", False: "no"}[name] if isinstance(name, bool) else str(name)


def check_changes(what: str, changes: Mapping[Any, Any]) -> None:
    """Check that `changes` has recipe keys other than the seed.

    Args:
        what: the name of the variant or level in an error message.

    Raises:
        UserError: for any other key.
    """
    for key in changes:
        if not isinstance(key, str):
            raise UserError(f"{what}: a recipe key must be a word, got {key!r}")
        if key == "seed":
            raise UserError(f"{what} must not set seed; the key seeds of the file does")


def expand(factors: object, design: object) -> tuple[dict[str, Changes], tuple[Effect, ...]]:
    """The changes of each variant by its name, and the main effects, which only the full design has.

    Raises:
        UserError: for factors of another form, an unknown design, or two factors that change the same key.
    """
    if design not in DESIGNS:
        raise UserError(f"design must be one of {', '.join(DESIGNS)}, got {design!r}")
    levels = _levels(factors)
    _check_apart(levels)
    first = {factor: next(iter(changes)) for factor, changes in levels.items()}
    if design == "full":
        chosen = [dict(zip(levels, combination, strict=True)) for combination in product(*levels.values())]
        names = {_name(choice): choice for choice in chosen}
        effects = tuple(
            _effect(factor, level, first[factor], chosen)
            for factor, changes in levels.items()
            for level in list(changes)[1:]
        )
    else:
        others = [(factor, level) for factor, changes in levels.items() for level in list(changes)[1:]]
        names = {_name(first): first, **{_name({factor: level}): {**first, factor: level} for factor, level in others}}
        effects = ()
    return {name: _merged(levels, choice) for name, choice in names.items()}, effects


def _levels(factors: object) -> dict[str, dict[str, Changes]]:
    if not (isinstance(factors, dict) and all(isinstance(raw, dict) and len(raw) >= 2 for raw in factors.values())):
        raise UserError("factors must map a name to its levels, two or more, each with the keys that it replaces")
    levels = {
        label(factor): {label(level): changes for level, changes in raw.items()} for factor, raw in factors.items()
    }
    for factor, changes_by_level in levels.items():
        for level, changes in changes_by_level.items():
            if not isinstance(changes, dict):
                raise UserError(f"factor {factor}, level {level}: must map the keys to replace, {{}} for none")
            check_changes(f"factor {factor}, level {level}", changes)
    return levels


def _check_apart(levels: Mapping[str, Mapping[str, Changes]]) -> None:
    """Refuse two factors that change the same key: the level of one would have no effect."""
    keys = {
        factor: {key for changes in changes_by_level.values() for key in changes}
        for factor, changes_by_level in levels.items()
    }
    for f, g in combinations(keys, 2):
        for a, b in product(sorted(keys[f]), sorted(keys[g])):
            if f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}."):
                raise UserError(f"the factors {f} and {g} both change {max(a, b, key=len)}; make them one factor")


def _effect(factor: str, level: str, first: str, chosen: list[dict[str, str]]) -> Effect:
    pairs = tuple((_name(c), _name({**c, factor: first})) for c in chosen if c[factor] == level)
    return Effect(f"{factor}: {level} against {first}", pairs)


def _name(choice: Mapping[str, str]) -> str:
    return ", ".join(f"{factor}={level}" for factor, level in choice.items())


def _merged(levels: Mapping[str, Mapping[str, Changes]], choice: Mapping[str, str]) -> Changes:
    return {key: value for factor, level in choice.items() for key, value in levels[factor][level].items()}


@dataclass(frozen=True)
class Ablation:
    """A study.

    Args:
        name: the file's name without its suffix.
        seeds: the seeds that each variant is trained with.
        variants: the recipe of each variant by its name; the first is the reference.
        effects: the main effects of a full design.
    """

    name: str
    seeds: tuple[int, ...]
    variants: Mapping[str, Recipe]
    effects: tuple[Effect, ...] = ()

    @property
    def reference(self) -> str:
        """The name of the first variant."""
        return next(iter(self.variants))

    def runs(self) -> Iterator[tuple[str, Recipe]]:
        """Every variant with every seed: all variants of one seed, then those of the next."""
        for seed in self.seeds:
            for name, recipe in self.variants.items():
                yield name, replace(recipe, seed=seed)


def load_ablation(path: Path) -> Ablation:
    """Read a study's file and the recipe that it names.

    Raises:
        UserError: naming the file and the key that is missing, unknown or wrong.
    """
    raw = read_yaml(path, "ablation", "seeds: [0, 1, 2]")
    for key in raw:
        if key not in _KEYS:
            raise UserError(f"{path}: unknown key {key!r}; known: {', '.join(_KEYS)}")
    for key in ("base", "seeds"):
        if not raw.get(key):
            raise UserError(f"{path}: the key {key!r} is missing or empty")
    shared = raw.get("set") or {}
    if not isinstance(shared, dict):
        raise UserError(f"{path}: set must map the recipe keys to replace to their values, got {shared!r}")
    try:
        seeds = check_seeds(raw["seeds"])
        check_changes("set", shared)
        changes, effects = _variants(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    base = path.parent / str(raw["base"])
    recipes: dict[str, Recipe] = {}
    for name, changed in changes.items():
        try:
            recipes[name] = load_recipe(base, {**shared, **changed})
        except UserError as error:
            raise UserError(f"{path}, variant {name}: {error}") from error
    names_by_run: dict[str, str] = {}
    for name, recipe in recipes.items():
        first = names_by_run.setdefault(run_name(recipe), name)
        if first != name:
            raise UserError(f"{path}: variants {first} and {name} are the same recipe; each must change something")
    return Ablation(path.stem, seeds, recipes, effects)


def check_seeds(seeds: object) -> tuple[int, ...]:
    """The seeds of a study.

    Raises:
        UserError: if they are not a list of different whole numbers from 0.
    """
    if not (isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)):
        raise UserError(f"seeds must be a list of whole numbers from 0, got {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds must differ, got {seeds!r}")
    return tuple(seeds)


def _variants(raw: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], tuple[Effect, ...]]:
    """The changes of each variant by its name, and the main effects."""
    if raw.get("factors"):
        if raw.get("variants"):
            raise UserError("give variants or factors, not both")
        return expand(raw["factors"], raw.get("design"))
    if "design" in raw:
        raise UserError("design needs factors; the file has none")
    variants = raw.get("variants")
    if not variants:
        raise UserError("the key 'variants' is missing or empty; give variants or factors")
    if not (isinstance(variants, dict) and all(isinstance(changed, dict) for changed in variants.values())):
        raise UserError("variants must map a name to the keys that it replaces, {} for none")
    for name, changed in variants.items():
        check_changes(f"variant {label(name)}", changed)
    return {label(name): changed for name, changed in variants.items()}, ()


def run_name(recipe: Recipe) -> str:
    """The name of the folder of a run: the same for the same recipe and seed, in every study.

    Only keys that differ from their defaults count: a new key of recipes does not change the names of old runs.
    """
    bare = parse_recipe({"model": recipe.model, "lr": recipe.lr}).to_dict()
    ours = bare.pop("seattn")
    keys = {key: value for key, value in recipe.to_dict().items() if key != "seed" and value != bare.get(key)}
    keys["seattn"] = {key: value for key, value in keys["seattn"].items() if value != ours[key]}
    digest = hashlib.sha256(json.dumps({**keys, "lr": recipe.lr, "model": recipe.model}, sort_keys=True).encode())
    return f"{recipe.model}-{digest.hexdigest()[:8]}-s{recipe.seed}"
