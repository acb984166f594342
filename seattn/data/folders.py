"""The splits of an image-folder tree: where they are, which classes and files they hold, which files are damaged."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import Image

from seattn.core.errors import UserError
from seattn.data.images import DECODE_ERRORS, FileSet, Size, cifar_folder, read_rgb

_SUFFIXES = frozenset(Image.registered_extensions())
_VALIDATION = ("validation", "val", "valid")  # as timm's image-folder reader spells it
_LOOKED_AT = 64  # images, to see whether a set is of large ones
_logger = logging.getLogger("seattn")


def find_split(data_dir: Path, split: str) -> Path:
    """The folder of `split` ("train", "validation", "test") in an image-folder tree.

    Raises:
        UserError: if it is not there.
    """
    if not data_dir.is_dir():
        raise UserError(f"no data folder {data_dir}; give a folder that holds train/<class>/<image> and test/…")
    for name in _VALIDATION if split == "validation" else (split,):
        if (data_dir / name).is_dir():
            return data_dir / name
    raise UserError(f"no {split} split in {data_dir}; it should hold {split}/<class>/<image>")


def has_split(data_dir: Path, split: str) -> bool:
    """Whether that split is there, without reading an image."""
    if cifar_folder(data_dir) is not None:
        return split in ("train", "test")
    try:
        find_split(data_dir, split)
    except UserError:
        return False
    return True


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders in `folder`, sorted."""
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def list_files(folder: Path) -> FileSet:
    """The images of `folder`/<class>/<image>, classes and files in sorted order.

    Raises:
        UserError: if there is none.
    """
    classes = class_folders(folder)
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in _SUFFIXES
    ]
    if not files:
        raise UserError(f"no images in {folder}; it should hold <class>/<image> of a kind that Pillow reads")
    return FileSet(tuple(path for path, _ in files), torch.tensor([label for _, label in files]), classes)


def check_classes(train: Path, folder: Path) -> None:
    """A split's folder must have train's class folders, of which some may be empty.

    Raises:
        UserError: naming the first that is missing, or is not in train.
    """
    known, found = class_folders(train), class_folders(folder)
    if missing := sorted(set(known) - set(found)):
        raise UserError(f"{folder} has no class folder {missing[0]!r}, which {train} has; an empty one will do")
    if more := sorted(set(found) - set(known)):
        raise UserError(f"{folder} has a class folder {more[0]!r}, which {train} has not")


def check_no_class_empty(files: FileSet, folder: Path) -> None:
    """Raise UserError, naming it, if a class of the train split has no image."""
    present = set(files.labels.tolist())
    empty = [name for label, name in enumerate(files.class_names) if label not in present]
    if empty:
        raise UserError(f"the class folder {folder / empty[0]} holds no images; fill it or remove it")


def leave_out_unreadable(files: FileSet, what: str, *, warn: bool = True) -> FileSet:
    """Decode every image once, and leave out and count those that cannot be read.

    Args:
        what: the split, for the warning.

    Raises:
        UserError: if none can be read.
    """

    def readable(path: Path) -> bool:
        try:
            read_rgb(path)
        except UserError:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        good = torch.tensor(list(pool.map(readable, files.paths)))
    bad = [str(files.paths[i]) for i in (~good).nonzero().flatten().tolist()]
    if len(bad) == len(files):
        raise UserError(f"none of the {len(files)} {what} images can be read; the first is {bad[0]}")
    if bad and warn:
        named = ", ".join(bad[:3]) + (", …" if len(bad) > 3 else "")
        _logger.warning("%d of %d %s images cannot be read and are left out: %s", len(bad), len(files), what, named)
    return files.subset(good.nonzero().flatten())


def any_larger(files: FileSet, size: Size) -> bool:
    """Whether one of some images, spread over the set, has more rows or columns than `size`; by their headers."""
    for path in files.paths[:: max(1, len(files) // _LOOKED_AT)]:
        try:
            with Image.open(path) as image:
                if image.width > size[1] or image.height > size[0]:
                    return True
        except DECODE_ERRORS:
            continue  # named when it is read
    return False
