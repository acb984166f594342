"""A comparison of recipes: one base, variants of it by what they change, and the seeds that each is run with.

The YAML of `zoo_configs/ablations/` says so in these keys: `base`, a recipe's path beside the file; `set`, which may be
left away, the keys of it that the whole comparison replaces (dotted ones reach below `seattn` and `model_kwargs`);
`seeds`; and either `variants`, a name and the recipe keys that it replaces beyond those, or `factors` with a `design`
(`_ablation_factors.py`), which make the variants.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seattn._ablation_factors import Effect, check_changes, expand, label
from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, load_recipe, parse_recipe, read_mapping

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
    raw = read_mapping(path, "ablation", "seeds: [0, 1, 2]")
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
