"""A small search to write."""

import yaml

from tests.helpers.colours import RECIPE

BASE = {**RECIPE, "epochs": 3, "seattn": {"dataset": "colours", "holdout": 0.2}}
SPACE = {"lr": {"float": [0.01, 1.0], "log": True}, "seattn.cutout": {"int": [0, 16], "step": 4}}


def write_search(folder, **changes):
    """`folder`/s.yaml with `changes` (None: without that key), and its base beside it."""
    (folder / "base.yaml").write_text(yaml.safe_dump({**BASE, **changes.pop("recipe", {})}))
    raw = {"base": "base.yaml", "space": SPACE, **changes}
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in raw.items() if value is not None}, sort_keys=False))
    return path
