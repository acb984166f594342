"""The YAML file of a study: one base recipe, the keys that each variant changes, and the seeds of the runs.

The files of `zoo_configs/ablations/` have these keys:

base       the path of a recipe, relative to the file's folder
set        optional: recipe keys that the whole study replaces; dotted keys name keys below `seattn` and `model_kwargs`
seeds      a list of whole numbers
variants   a name, and the recipe keys that this variant replaces beyond those of `set`; the first is the reference
factors    in place of variants: a name, and its levels, each with the recipe keys that it replaces; the first level is
           the factor's reference:
             se: {yes: {}, no: {model: resnet20_cifar.cifar10}}
             augmentation: {yes: {}, no: {seattn.crop_padding: 0, hflip: 0.0}}
design     with factors: `full`, every combination of levels; or `one_removed`, in which each variant changes one
           factor from its reference level
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, load_recipe, parse_recipe
from seattn.core.records import parse, read_yaml

Changes = dict[str, Any]  # recipe keys and the values that replace theirs
Factors = dict[str, Annotated[dict[str, Changes], Field(min_length=2)]]


@dataclass(frozen=True)
class StudyFile:
    """The keys of a study's file."""

    base: str
    seeds: list[Any]
    set: Changes = field(default_factory=dict)
    variants: dict[str, Changes] = field(default_factory=dict)
    factors: Factors = field(default_factory=dict)
    design: Literal["full", "one_removed"] | None = None


@dataclass(frozen=True)
class Effect:
    """A main effect: a level against the first level of its factor.

    Args:
        name: names the two levels.
        pairs: variants that differ in this factor only: one with the level, one with the first level.
    """

    name: str
    pairs: tuple[tuple[str, str], ...]


def expand(levels: Factors, design: str) -> tuple[dict[str, Changes], tuple[Effect, ...]]:
    """The changes of each variant by its name, and the main effects, which only the full design has.

    Raises:
        UserError: for two factors that change the same key.
    """
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
    raw = _text_keys(read_yaml(path, "ablation", "seeds: [0, 1, 2]"))
    file = parse(StudyFile, {key: value for key, value in raw.items() if value is not None}, path)
    try:
        seeds = check_seeds(file.seeds)
        changes, effects = _variants(file)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    recipes: dict[str, Recipe] = {}
    names_by_run: dict[str, str] = {}
    for name, changed in changes.items():
        replaced = {**file.set, **changed}
        if "seed" in replaced:
            raise UserError(f"{path}, variant {name}: must not set seed; the key seeds of the file does")
        try:
            recipes[name] = load_recipe(path.parent / file.base, replaced)
        except UserError as error:
            raise UserError(f"{path}, variant {name}: {error}") from error
        first = names_by_run.setdefault(run_name(recipes[name]), name)
        if first != name:
            raise UserError(f"{path}: variants {first} and {name} are the same recipe; each must change something")
    return Ablation(path.stem, seeds, recipes, effects)


def _text_keys(value: Any) -> Any:
    """`value` with all keys as text, at every depth; YAML reads the names `yes` and `no` as truth values."""
    if isinstance(value, dict):
        words = {True: "yes", False: "no"}
        return {words[key] if isinstance(key, bool) else str(key): _text_keys(item) for key, item in value.items()}
    return [_text_keys(item) for item in value] if isinstance(value, list) else value


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


def _variants(file: StudyFile) -> tuple[dict[str, Changes], tuple[Effect, ...]]:
    """The changes of each variant by its name, and the main effects."""
    if bool(file.variants) == bool(file.factors):
        raise UserError("give variants or factors: one of them, and not empty")
    if file.variants:
        if file.design is not None:
            raise UserError("design needs factors; the file has none")
        return file.variants, ()
    if file.design is None:
        raise UserError("factors need a design: full or one_removed")
    return expand(file.factors, file.design)


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
