"""A comparison of recipes: one base, variants of it by what they change, and the seeds that each is run with.

The YAML of `zoo_configs/ablations/` says so in these keys: `base`, a recipe's path beside the file; `set`, which may be
left away, the keys of it that the whole comparison replaces (dotted ones reach below `seattn` and `model_kwargs`);
`seeds`; and either `variants`, a name and the recipe keys that it replaces beyond those, or `factors` with a `design`
which make the variants.

Factors of a study: each with levels, the first its reference; a design says which combinations are run.
```yaml
factors:
  se: {yes: {}, no: {model: resnet20_cifar.cifar10}}
  augmentation: {yes: {}, no: {seattn.crop_padding: 0, hflip: 0.0}}
design: full # every combination; or one_removed: the references, and each other level by itself
```
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
Changes = dict[str, Any]


@dataclass(frozen=True)
class Effect:
    """What a level gives against its factor's first, all others alike: `pairs` of variants, the first's second."""

    name: str
    pairs: tuple[tuple[str, str], ...]


def label(name: object) -> str:
    """A key of the YAML as it was meant: `yes` and `no` are truth values there."""
    return {True: "yes", False: "no"}[name] if isinstance(name, bool) else str(name)


def check_changes(what: str, changes: Mapping[Any, Any]) -> None:
    """See that `changes` names recipe keys, and not the seed.

    Raises:
        UserError: naming `what` they are of.
    """
    for key in changes:
        if not isinstance(key, str):
            raise UserError(f"{what}: a recipe key must be a word, got {key!r}")
        if key == "seed":
            raise UserError(f"{what} must not set seed; the key seeds of the file does")


def expand(factors: object, design: object) -> tuple[dict[str, Changes], tuple[Effect, ...]]:
    """The variants' changes by name, and the main effects, which the full design alone has.

    Raises:
        UserError: for factors of another form, an unknown design, or two factors that change one key.
    """
    if design not in DESIGNS:
        raise UserError(f"design must be one of {', '.join(DESIGNS)}, got {design!r}")
    levels = _levels(factors)
    _check_apart(levels)
    first = {factor: next(iter(of)) for factor, of in levels.items()}
    if design == "full":
        chosen = [dict(zip(levels, combination, strict=True)) for combination in product(*levels.values())]
        names = {_name(choice): choice for choice in chosen}
        effects = tuple(
            _effect(factor, level, first[factor], chosen) for factor, of in levels.items() for level in list(of)[1:]
        )
    else:
        others = [(factor, level) for factor, of in levels.items() for level in list(of)[1:]]
        names = {_name(first): first, **{_name({f: level}): {**first, f: level} for f, level in others}}
        effects = ()
    return {name: _merged(levels, choice) for name, choice in names.items()}, effects


def _levels(factors: object) -> dict[str, dict[str, Changes]]:
    if not (isinstance(factors, dict) and all(isinstance(of, dict) and len(of) >= 2 for of in factors.values())):
        raise UserError("factors must map a name to its levels, two or more, each with the keys that it replaces")
    levels = {label(factor): {label(level): changes for level, changes in of.items()} for factor, of in factors.items()}
    for factor, of in levels.items():
        for level, changes in of.items():
            if not isinstance(changes, dict):
                raise UserError(f"factor {factor}, level {level}: must map the keys to replace, {{}} for none")
            check_changes(f"factor {factor}, level {level}", changes)
    return levels


def _check_apart(levels: Mapping[str, Mapping[str, Changes]]) -> None:
    """Where two factors change one key, the later one would hide the other's level."""
    keys = {factor: {key for changes in of.values() for key in changes} for factor, of in levels.items()}
    for one, other in combinations(keys, 2):
        for a, b in product(sorted(keys[one]), sorted(keys[other])):
            if f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}."):
                raise UserError(f"the factors {one} and {other} both change {max(a, b, key=len)}; make them one factor")


def _effect(factor: str, level: str, first: str, chosen: list[dict[str, str]]) -> Effect:
    pairs = tuple((_name(c), _name({**c, factor: first})) for c in chosen if c[factor] == level)
    return Effect(f"{factor}: {level} against {first}", pairs)


def _name(choice: Mapping[str, str]) -> str:
    return ", ".join(f"{factor}={level}" for factor, level in choice.items())


def _merged(levels: Mapping[str, Mapping[str, Changes]], choice: Mapping[str, str]) -> Changes:
    return {key: value for factor, level in choice.items() for key, value in levels[factor][level].items()}


_KEYS = ("base", "seeds", "variants", "set", "factors", "design")


@dataclass(frozen=True)
class Ablation:
    """`variants`: the recipe of each, by name, the first being what the others are compared with.

    `effects`: those of the factors' levels over all levels of the others, where the design is full.
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
        """Every variant with every seed; all variants of a seed before the next."""
        for seed in self.seeds:
            for name, recipe in self.variants.items():
                yield name, replace(recipe, seed=seed)


def load_ablation(path: Path) -> Ablation:
    """Read `path` and the recipe that it names.

    Raises:
        UserError: naming the file and what is missing, unknown or wrong in it.
    """
    raw = read_yaml(path, "ablation", "seeds: [0, 1, 2]")
    for key in raw:
        if key not in _KEYS:
            raise UserError(f"{path}: unknown key {key!r}; known: {', '.join(_KEYS)}")
    for key in _KEYS[:2]:
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
    known: dict[str, str] = {}
    for name, recipe in recipes.items():
        first = known.setdefault(run_name(recipe), name)
        if first != name:
            raise UserError(f"{path}: variants {first} and {name} are one recipe; each must change something")
    return Ablation(path.stem, seeds, recipes, effects)


def check_seeds(seeds: object) -> tuple[int, ...]:
    """Seeds as a study may have them.

    Raises:
        UserError: unless they are a list of different whole numbers from 0.
    """
    if not (isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)):
        raise UserError(f"seeds must be a list of whole numbers from 0, got {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds must differ, got {seeds!r}")
    return tuple(seeds)


def _variants(raw: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], tuple[Effect, ...]]:
    """What each variant changes, by name, and the effects that they make comparable."""
    if raw.get("factors"):
        if raw.get("variants"):
            raise UserError("give variants or factors, not both")
        return expand(raw["factors"], raw.get("design"))
    if "design" in raw:
        raise UserError("design says how factors make the variants; there are no factors")
    variants = raw.get("variants")
    if not variants:
        raise UserError("the key 'variants' is missing or empty; or give factors")
    if not (isinstance(variants, dict) and all(isinstance(changed, dict) for changed in variants.values())):
        raise UserError("variants must map a name to the keys that it replaces, {} for none")
    for name, changed in variants.items():
        check_changes(f"variant {label(name)}", changed)
    return {label(name): changed for name, changed in variants.items()}, ()


def run_name(recipe: Recipe) -> str:
    """A folder's name for the run of `recipe`: one recipe and seed, one name, whichever comparison asks for it.

    Only keys that differ from their defaults count, so that a new key does not part old runs from their names.
    """
    bare = parse_recipe({"model": recipe.model, "lr": recipe.lr}).to_dict()
    ours = bare.pop("seattn")
    keys = {key: value for key, value in recipe.to_dict().items() if key != "seed" and value != bare.get(key)}
    keys["seattn"] = {key: value for key, value in keys["seattn"].items() if value != ours[key]}
    digest = hashlib.sha256(json.dumps({**keys, "lr": recipe.lr, "model": recipe.model}, sort_keys=True).encode())
    return f"{recipe.model}-{digest.hexdigest()[:8]}-s{recipe.seed}"
