"""Recipes from YAML files and plain values: those of this package by their names, and those of users by their paths."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seattn.core.errors import UserError
from seattn.core.files import not_found
from seattn.core.recipe.foreign import nearest
from seattn.core.recipe.keys import OurKeys, Recipe
from seattn.core.records import read_yaml

CONFIGS = Path(__file__).parents[2] / "zoo_configs"  # a link to the folder of the repository; in a wheel, its files


def packaged_configs(kind: str = "") -> dict[str, Path]:
    """The files of `zoo_configs/` in this package by their names: recipes, or the "ablations" or "searches"."""
    files = sorted((CONFIGS / kind).glob("*.yaml"))
    return {path.stem: path for path in files if path.name != "queue.yaml"}


def find_config(name: Path, kind: str = "") -> Path:
    """The file `name` if there is one, otherwise the file of that name in this package.

    Args:
        kind: "" for recipes, "ablations" or "searches".

    Raises:
        UserError: if there is neither; it names the packaged file with the nearest name.
    """
    packaged, stem = packaged_configs(kind), name.name.removesuffix(".yaml")
    may_be_packaged = name.parent in (Path(), Path("zoo_configs") / kind)
    if may_be_packaged and stem in packaged and not os.path.isfile(name):  # a folder of that name may be there
        return packaged[stem]
    if os.path.lexists(name):
        return name
    if not may_be_packaged:
        raise UserError(not_found("file", name))
    near = difflib.get_close_matches(stem, packaged, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"there is no file {name}, and no such name in this package; {hint}--list shows the names")


def load_recipe(path: Path, overrides: Mapping[str, object] | None = None) -> Recipe:
    """The recipe in the file `path`, with the keys of `overrides` replaced ("seattn.cutout": `cutout` under `seattn`).

    Raises:
        UserError: naming the file, the key and the nearest valid one, or the value and what would be right.
    """
    raw = read_yaml(path, "recipe", "model: se_resnet20_cifar")
    return parse_recipe(replace_keys(raw, overrides or {}), source=str(path))


def parse_recipe(raw: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
    """A recipe from plain values.

    Raises:
        UserError: naming `source`, for an unknown, missing or ill-typed key, or a value out of range.
    """
    for key in raw:
        if key in OurKeys.__dataclass_fields__:
            right = nearest(key, raw[key])
            hint = f" The nearest to {raw[key]!r} is {right}" if right else ""
            raise UserError(f"{source}: unknown key {key!r}; did you mean 'seattn.{key}'?{hint}")
    try:
        return Recipe(**{str(key): value for key, value in raw.items()})
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def replace_keys(raw: dict[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """`raw` with the values of `changes`, whose dotted keys name values inside of mappings."""
    for key, value in changes.items():
        raw = _replaced(raw, key.split("."), value)
    return raw


def _replaced(raw: Any, path: list[str], value: object) -> dict[str, Any]:
    raw = raw if isinstance(raw, dict) else {}
    inner = value if len(path) == 1 else _replaced(raw.get(path[0]), path[1:], value)
    return {**raw, path[0]: inner}
