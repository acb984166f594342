"""A recipe: how one net is trained, as a frozen, typed record that a YAML file fills.

The top-level keys, their meaning and their defaults are those of timm's train.py, so that one file drives both. Keys
that timm does not have are under the key `seattn`. A file is called after its weights: `<arch>.<tag>.yaml`.
"""

from seattn.core.recipe.keys import CYCLIC, Number, OurKeys, Recipe, Scheduler, Seed
from seattn.core.recipe.reading import find_config, load_recipe, packaged_configs, parse_recipe, replace_keys

__all__ = [
    "CYCLIC",
    "Number",
    "OurKeys",
    "Recipe",
    "Scheduler",
    "Seed",
    "find_config",
    "load_recipe",
    "packaged_configs",
    "parse_recipe",
    "replace_keys",
]
