"""A user's folder: every image is decoded once, so that a damaged one is found before a training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from seattn.core.errors import UserError
from seattn.core.files import printable
from seattn.data.folders.classes import class_folders
from seattn.data.folders.files import check_no_class_empty, list_files
from seattn.data.folders.splits import check_class_folders, find_splits, require_folders
from seattn.data.images import FileSet, Size, leave_out_unreadable, read_sizes


@dataclass(frozen=True)
class UserImages:
    """The splits of a folder, as files; a folder without splits is all "train".

    Args:
        splits: name ("train", "validation", "test") -> its files.
        folders: name -> its folder.
        class_folders: name -> the folder of each class, by label; where there are none, the names of the classes.
        sizes: the different (H, W) of the images that can be read.
        skipped: the number of images that cannot be read.
    """

    splits: Mapping[str, FileSet]
    folders: Mapping[str, Path]
    class_folders: Mapping[str, tuple[str, ...]]
    sizes: frozenset[Size]
    skipped: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""
        return self.splits["train"].class_names

    def counts(self) -> list[int]:
        """The number of images of each class in train."""
        return torch.bincount(self.splits["train"].labels, minlength=len(self.class_names)).tolist()


def read_folder(data_dir: Path, *, skip_bad: bool, exif: bool = True) -> UserImages:
    """List the images of `data_dir` and decode each once, so that a damaged one is found before any training.

    Args:
        data_dir: `train/<class>/<image>`, with validation/… and test/… or without; or `<class>/<image>`.

    Raises:
        UserError: naming what is missing or wrong: no folder, no image, one class, an empty class, a damaged image.
    """
    require_folders(data_dir)
    folders = find_splits(data_dir)
    if folders and "train" not in folders:
        raise UserError(
            f"{printable(data_dir)} has a {next(iter(folders))} split but no train split; it should hold "
            "train/<class>/<image>"
        )
    if not folders:
        check_class_folders(data_dir)
        folders = {"train": data_dir}
    listed = {name: list_files(folder, exif=exif) for name, folder in folders.items()}
    names = {name: class_folders(folder) for name, folder in folders.items()}
    if len(names["train"]) < 2:
        raise UserError(
            f"{printable(folders['train'])} has one class, {printable(names['train'][0])!r}; it should hold two or "
            "more class folders"
        )
    check_no_class_empty(listed["train"], folders["train"])
    images = read_images(listed, folders, names, skip_bad=skip_bad)
    check_no_class_empty(images.splits["train"], folders["train"])
    return images


def read_images(
    listed: Mapping[str, FileSet],
    folders: Mapping[str, Path],
    class_folders: Mapping[str, tuple[str, ...]],
    *,
    skip_bad: bool,
) -> UserImages:
    """Decode each of the `listed` images once; the arguments are those of `UserImages`.

    Raises:
        UserError: naming a damaged image, unless `skip_bad` leaves such images out.
    """
    sizes = {name: read_sizes(files) for name, files in listed.items()}
    bad = [path for name in listed for path, size in zip(listed[name].paths, sizes[name], strict=True) if size is None]
    if bad and not skip_bad:
        raise UserError(
            f"{len(bad)} of {sum(map(len, listed.values()))} images cannot be read, the first is {printable(bad[0])}; "
            "replace them, or leave them out with --skip-bad"
        )
    readable = {
        name: leave_out_unreadable(files, name, sizes=sizes[name], warn=False) for name, files in listed.items()
    }
    seen = frozenset(size for split in sizes.values() for size in split if size is not None)
    return UserImages(readable, folders, class_folders, seen, len(bad))
