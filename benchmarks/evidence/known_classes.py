"""The check that images have the classes that a net was made for, by name: as many other classes are refused, too."""

from collections.abc import Sequence
from pathlib import Path

import timm

from seattn.core.errors import UserError, shorten


def check_known(folder: Path, names: Sequence[str], model: str) -> None:
    """Refuse images in `folder` of classes `names` that the net `model` does not know.

    A name without a tag is a net for any classes; timm would give those of a default tag.

    Raises:
        UserError: naming the first of these classes.
    """
    cfg = timm.get_pretrained_cfg(model) if "." in model else None
    known = (cfg and cfg.label_names) or names
    if strays := [name for name in names if name not in known]:
        raise UserError(
            f"{folder} has classes that {model} does not know: {shorten(strays)}; it knows {shorten(known)}"
        )
