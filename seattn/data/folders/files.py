"""The images in class folders, and checks of the classes that they give."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from seattn.core.errors import UserError
from seattn.core.files import is_one_line, not_found, printable
from seattn.data.folders.classes import class_folders, is_hidden, is_run
from seattn.data.images import SUFFIXES, FileSet

_logger = logging.getLogger("seattn")


def list_files(folder: Path, *, exif: bool = True) -> FileSet:
    """The images of `folder/<class>/<image>`, classes and files in sorted order; every command uses this function.

    Images at any depth of a class folder count, also in linked folders. Files without a suffix of images are ignored; a
    warning counts them.

    Raises:
        UserError: if there is no image, if two class folders differ only in bytes that are not UTF-8, or if a
            name has a control character.
    """
    if not folder.is_dir():
        raise UserError(f"{not_found('folder', folder)}; expected {printable(folder)}/<class>/<image>")
    classes = class_folders(folder)
    names = tuple(map(printable, classes))
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise UserError(f"two class folders in {printable(folder)} are both shown as {twice!r}; rename one in UTF-8")
    if odd := next((name for name in names if not is_one_line(name)), None):
        raise UserError(
            f"the class folder {odd!r} in {printable(folder)} has a control character in its name; rename it"
        )
    ignored: Counter[str] = Counter()
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = sorted(walk_images(folder / name, ignored))
        paths += images
        labels += [label] * len(images)
    if ignored:
        _warn_of_ignored(folder, ", ".join(f"{suffix} {count}" for suffix, count in ignored.most_common()))
    if not paths:
        raise UserError(
            f"no images in {printable(folder)}; expected {printable(folder)}/<class>/<image>, where an image is a file "
            f"such as .jpg, .png or .tif"
        )
    return FileSet(tuple(paths), torch.tensor(labels), names, exif)


def list_images(folder: Path) -> list[Path]:
    """The images at any depth below `folder`, sorted, without hidden files and folders.

    Raises:
        UserError: if there is no image.
    """
    images = sorted(walk_images(folder, Counter()))
    if not images:
        raise UserError(f"no images in {printable(folder)}; an image is a file such as .jpg, .png or .tif")
    return images


def walk_images(folder: Path, ignored: Counter[str]) -> Iterator[Path]:
    """The images below `folder`; each folder is visited once, however many links lead to it."""

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot list the folder {printable(error.filename)}: {error.strerror}") from error

    visited = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name) and not is_run(Path(root, name)))
        for name in files:
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES and not is_hidden(name):
                yield Path(root) / name
            elif not is_hidden(name):
                ignored[printable(suffix) or "no suffix"] += 1


@cache  # a folder is listed several times in a run
def _warn_of_ignored(folder: Path, counts: str) -> None:
    _logger.warning("files in %s without a suffix of images are ignored: %s", printable(folder), counts)


def check_classes(train: Path, folder: Path) -> None:
    """A split's folder must have train's class folders, of which some may be empty.

    Raises:
        UserError: naming the first that is missing, or is not in train.
    """
    expected, present = class_folders(train), class_folders(folder)
    where, train_shown = printable(folder), printable(train)
    if missing := sorted(set(expected) - set(present)):
        name = printable(missing[0])
        raise UserError(f"{where} has no class folder {name!r}, which {train_shown} has; an empty folder is enough")
    if more := sorted(set(present) - set(expected)):
        raise UserError(f"{where} has a class folder {printable(more[0])!r}, which {train_shown} does not have")


def check_no_class_empty(files: FileSet, folder: Path) -> None:
    """Raise UserError, naming it, if a class of the train split has no image."""
    present = set(files.labels.tolist())
    empty = [name for label, name in enumerate(files.class_names) if label not in present]
    if empty:
        raise UserError(f"the class folder {printable(folder)}/{empty[0]} holds no images; fill it or remove it")
