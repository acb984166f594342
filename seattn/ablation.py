"""A comparison of recipes: one base, variants of it by what they change, and the seeds that each is run with.

The YAML of `zoo_configs/ablations/` says so in these keys: `base`, a recipe's path beside the file; `set`, which may be
left away, the keys of it that the whole comparison replaces (dotted ones reach below `seattn` and `model_kwargs`);
`seeds`; `variants`, a name and the recipe keys that it replaces beyond those.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from seattn.errors import UserError
from seattn.recipe import Recipe, load_recipe, parse_recipe, read_mapping

_KEYS = ("base", "seeds", "variants", "set")


@dataclass(frozen=True)
class Ablation:
    """`variants`: the recipe of each, by name, the first being what the others are compared with."""

    name: str
    seeds: tuple[int, ...]
    variants: Mapping[str, Recipe]

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
    for key in _KEYS[:3]:
        if not raw.get(key):
            raise UserError(f"{path}: the key {key!r} is missing or empty")
    seeds, variants, shared = raw["seeds"], raw["variants"], raw.get("set") or {}
    if not isinstance(shared, dict):
        raise UserError(f"{path}: set must map the recipe keys to replace to their values, got {shared!r}")
    if not (isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)):
        raise UserError(f"{path}: seeds must be a list of whole numbers from 0, got {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{path}: seeds must differ, got {seeds!r}")
    if not (isinstance(variants, dict) and all(isinstance(changes, dict) for changes in variants.values())):
        raise UserError(f"{path}: variants must map a name to the keys that it replaces, {{}} for none")
    base = path.parent / str(raw["base"])
    recipes = {}
    for name, changes in variants.items():
        try:
            recipes[str(name)] = load_recipe(base, {**shared, **changes})
        except UserError as error:
            raise UserError(f"{path}, variant {name}: {error}") from error
    return Ablation(path.stem, tuple(seeds), recipes)


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
