"""Which output of a model each class folder of a data set stands for."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from seattn.core.errors import UserError, shorten
from seattn.core.records import read_text
from seattn.data.transforms import class_names

_logger = logging.getLogger("seattn")


def match_classes(
    folders: Sequence[str], model: nn.Module, class_map: Path | None = None
) -> tuple[list[int], tuple[str, ...]]:
    """The index of the model's output for each class folder, and the names of all K outputs.

    Folders are matched by `class_map` if it is given, or by name if each folder is one of the model's label names.
    Otherwise K folders are matched by their order, with a warning; numbers are sorted by value, as in timm.

    Raises:
        UserError: if the folders cannot be matched.
    """
    known = class_names(model)
    if class_map is not None:
        return _read_class_map(folders, known, class_map)
    if set(folders) <= set(known):
        if twice := next((name for name in folders if known.count(name) > 1), None):
            raise UserError(
                f"{known.count(twice)} of the model's classes are called {twice!r}, so this class folder cannot be "
                "matched; give --class-map FILE, a different folder for each class on a line"
            )
        return [known.index(name) for name in folders], known
    stray = next(name for name in folders if name not in known)
    if len(folders) != len(known):
        raise UserError(
            f"class folder {stray!r} is not one of the model's {len(known)} classes ({shorten(known)}), and "
            f"{len(folders)} folders cannot be matched to {len(known)} classes by their order; give --class-map FILE, "
            "with the folder of each class on a line"
        )
    ordered = sorted(folders, key=_natural_key)
    _logger.warning(
        "class folder %r is not a class of the model: folders are matched to its classes by their order, %s to %s%s; "
        "if the model was trained with another order, give --class-map FILE, with the folder of each class on a line",
        stray,
        ordered[0],
        ordered[-1],
        "" if ordered == sorted(folders) else " by number (as text, 10 would come before 2)",
    )
    return [ordered.index(name) for name in folders], tuple(ordered)


def _natural_key(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _read_class_map(folders: Sequence[str], known: Sequence[str], class_map: Path) -> tuple[list[int], tuple[str, ...]]:
    if not class_map.is_file():
        raise UserError(
            f"the class map {class_map} is not a file; give a text file with the name of a folder on each line"
        )
    names = [line.strip() for line in read_text(class_map, "class map").split("\n") if line.strip()]
    if len(names) != len(known) or len(set(names)) < len(names):
        raise UserError(
            f"the class map {class_map} has {len(set(names))} different lines, and the model {len(known)} classes; "
            "give the name of a folder for each class, in the order of the model's outputs"
        )
    if strays := [name for name in folders if name not in names]:
        raise UserError(f"class folder {strays[0]!r} is not in the class map {class_map}")
    return [names.index(name) for name in folders], tuple(names)
