"""Image folders: their splits, classes and files, which files are damaged, and splits where there are none."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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


_NAMED = 12  # classes whose counts are printed


@dataclass(frozen=True)
class UserImages:
    """The splits of a folder, as files; a folder without splits is all "train".

    Args:
        splits: name ("train", "validation", "test") -> its files.
        folders: name -> where it is.
        sizes: (H, W) of the images that could be read, each once.
        skipped: how many could not.
    """

    splits: Mapping[str, FileSet]
    folders: Mapping[str, Path]
    sizes: frozenset[tuple[int, int]]
    skipped: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""
        return self.splits["train"].class_names

    def counts(self) -> list[int]:
        """Images of each class in train."""
        return torch.bincount(self.splits["train"].labels, minlength=len(self.class_names)).tolist()


def read_folder(data_dir: Path, *, skip_bad: bool) -> UserImages:
    """List the images of `data_dir` and decode each once, so that a damaged one is found before any training.

    Args:
        data_dir: train/<class>/<image>, with validation/… and test/… or without; or <class>/<image>.

    Raises:
        UserError: naming what is missing or wrong: no folder, no image, one class, an empty class, a damaged image.
    """
    if not data_dir.is_dir():
        raise UserError(f"no data folder {data_dir}; give a folder that holds <class>/<image>, a folder a class")
    names = [name for name in ("train", "validation", "test") if has_split(data_dir, name)]
    if names and "train" not in names:
        raise UserError(f"{data_dir} has a {names[0]} split but no train split; it should hold train/<class>/<image>")
    folders = {name: find_split(data_dir, name) for name in names} or {"train": data_dir}
    listed = {name: list_files(folder) for name, folder in folders.items()}
    train = listed["train"]
    if len(train.class_names) < 2:
        raise UserError(
            f"{folders['train']} has one class, {train.class_names[0]!r}; it should hold two or more, a folder each"
        )
    check_no_class_empty(train, folders["train"])
    sizes = {name: _sizes(files) for name, files in listed.items()}
    bad = [
        path for name, files in listed.items() for path, size in zip(files.paths, sizes[name], strict=True) if not size
    ]
    if bad and not skip_bad:
        count = sum(map(len, listed.values()))
        raise UserError(
            f"{len(bad)} of {count} images cannot be read, the first is {bad[0]}; replace them, or leave them out with "
            "--skip-bad"
        )
    readable = {
        name: files.subset(torch.tensor([i for i, size in enumerate(sizes[name]) if size], dtype=torch.int64))
        for name, files in listed.items()
    }
    check_no_class_empty(readable["train"], folders["train"])
    found = frozenset(size for split in sizes.values() for size in split if size)
    return UserImages(readable, folders, found, len(bad))


def _sizes(files: FileSet) -> list[tuple[int, int] | None]:
    """(H, W) of each image, None where it cannot be decoded."""

    def size(path: Path) -> tuple[int, int] | None:
        try:
            image = read_rgb(path)
        except UserError:
            return None
        return image.height, image.width

    with ThreadPoolExecutor() as pool:
        return list(pool.map(size, files.paths))


def describe(names: Sequence[str], counts: Sequence[int]) -> str:
    """The classes and their images, in a line."""
    most, least = max(range(len(counts)), key=counts.__getitem__), min(range(len(counts)), key=counts.__getitem__)
    if len(names) <= _NAMED:
        return ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
    return f"from {counts[least]} ({names[least]}) to {counts[most]} ({names[most]}) images each"


def link_splits(images: UserImages, root: Path, seed: int) -> None:
    """Make `root`/<split>/<class>/… of links to the images, with the splits that are missing taken out of train.

    A missing split gets a tenth of each class, at least one image; the same images for the same seed.

    Raises:
        UserError: if a class has too few images for that, or the links cannot be made.
    """
    generator = torch.Generator().manual_seed(seed)
    missing = [name for name in ("test", "validation") if name not in images.splits]
    for split in set(images.splits) - {"train"}:
        _link(images, split, range(len(images.splits[split])), root / split)
    labels = images.splits["train"].labels
    for label, name in enumerate(images.class_names):
        index = (labels == label).nonzero().flatten()
        if len(index) <= len(missing):
            raise UserError(
                f"class {name!r} has {len(index)} images and needs {len(missing) + 1} or more: "
                f"{images.folders['train']} has no {' and no '.join(missing)} split, so that one is made of it"
            )
        order = index[torch.randperm(len(index), generator=generator)].tolist()
        share = max(1, round(len(order) / 10))
        for split in missing:
            _link(images, "train", order[:share], root / split)
            order = order[share:]
        _link(images, "train", order, root / "train")


def _link(images: UserImages, split: str, index: Iterable[int], target: Path) -> None:
    """Link some images of a split into `target`; the name of a folder within a class' folder goes into the file's."""
    files, folder = images.splits[split], images.folders[split].resolve()
    for name in files.class_names:
        (target / name).mkdir(parents=True, exist_ok=True)
    for i in index:
        source = folder / files.paths[i].relative_to(images.folders[split])
        name, *inside = source.relative_to(folder).parts
        try:
            (target / name / "__".join(inside)).symlink_to(source)
        except OSError as error:
            raise UserError(
                f"cannot link {source} into {target}: {error.strerror}; split the folder by hand"
            ) from error


SPLITS = ("train", "test", "val", "valid", "validation")


def split_folder(data_dir: Path, split: str) -> Path:
    """`data_dir/split`; or `data_dir` itself, if its children are class folders and none is a split.

    Raises:
        UserError: if there is neither.
    """
    if not data_dir.is_dir():
        raise UserError(f"no such folder: {data_dir}; expected {data_dir}/{split}/<class>/<image>")
    children = set(class_folders(data_dir))
    candidates: tuple[str, ...] = (split, *SPLITS[2:]) if split in SPLITS[2:] else (split,)
    for name in candidates:
        if name in children:
            return data_dir / name
    splits = sorted(children & set(SPLITS))
    if splits:
        raise UserError(f"{data_dir} has no split {split!r}; it has {', '.join(splits)}")
    if not children:
        raise UserError(f"{data_dir} has no folders; expected {data_dir}/{split}/<class>/<image>")
    return data_dir
