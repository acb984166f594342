"""The splits that a run made of a folder, as links; and checks that no net is scored on the images of its training."""

import os
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from seattn.core.errors import UserError
from seattn.core.files import printable
from seattn.data.folders.splits import SPLITS, has_split, split_name
from seattn.data.images import FileSet, ImageSet

DATA = "data"  # the folder of links, in the folder of the run
_RECIPE = "recipe.yaml"
_ATTRIBUTE = "seattn_splits"  # of a net that a run trained


def splits_of_run(place: Path) -> Path | None:
    """The links of the run in the folder `place`, or of which `place` is a file; None if that run made none."""
    run = place.parent if place.is_file() else place
    return run / DATA if (run / _RECIPE).is_file() and (run / DATA).is_dir() else None


def set_splits(model: nn.Module, splits: Path | None) -> None:
    """Give the net the links of the run that trained it, which `check_unseen` reads."""
    setattr(model, _ATTRIBUTE, splits)


def images_of_runs(made: Sequence[Path], data_dir: Path, split: str) -> Path:
    """`data_dir`; or the splits that runs made of it, if it has no such split itself.

    Args:
        made: for each run its links, as `splits_of_run` returns them.

    Raises:
        UserError: if the runs split the folder differently.
    """
    name = split_name(split)
    own = [splits for splits in made if name in SPLITS and _were_made_of(splits, data_dir)]
    if not own or has_split(data_dir, name):
        return data_dir
    parts = {frozenset((link.parts[-3], os.path.realpath(link)) for link in splits.glob("*/*/*")) for splits in own}
    if len(parts) > 1:
        raise UserError(
            f"the runs did not split {printable(data_dir)} alike: one may have trained on images that another is "
            "scored on; take the runs one by one, or give images that none of them has seen"
        )
    return own[0]


def _were_made_of(splits: Path, data_dir: Path) -> bool:
    """Whether training images are in `data_dir`, also through links in it."""
    if not data_dir.is_dir():
        return False
    folders = {
        Path(path).parent for link in splits.glob("train/*/*") for path in (_target(link), os.path.realpath(link))
    }
    parents = {parent for folder in folders for parent in (folder, *folder.parents) if parent.is_dir()}
    return any(parent.samefile(data_dir) for parent in parents)


def _target(link: Path) -> str:
    return os.readlink(link) if link.is_symlink() else str(link.absolute())


def check_unseen(model: nn.Module, images: FileSet | ImageSet, split: str) -> None:
    """Refuse images that the net's own run trained on or chose by, if the split is not called one of these.

    Raises:
        UserError: with the number of such images, and the folder of the images that the run kept for the test.
    """
    splits: Path | None = getattr(model, _ATTRIBUTE, None)
    if splits is None or not isinstance(images, FileSet) or split_name(split) in ("train", "validation"):
        return
    seen = {os.path.realpath(link) for part in ("train", "validation") for link in splits.glob(f"{part}/*/*")}
    if count := sum(os.path.realpath(path) in seen for path in images.paths):
        raise UserError(
            f"{count:,} of these {len(images):,} images were used in the training of {printable(splits.parent)}; give "
            f"other images, or --data-dir {printable(splits)}, which has the images that it kept for the test"
        )
