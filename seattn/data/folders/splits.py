"""The splits of a folder of images: train, validation and test, by the names that people give them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from seattn.core.errors import UserError, shorten
from seattn.core.files import not_found, printable
from seattn.data.folders.classes import class_folders, is_hidden
from seattn.data.images import SUFFIXES, cifar_folder

# The names of a split's folder, in upper or lower case, with "-" or a space in place of "_"; the first found is taken.
SPLITS = {
    "train": ("train", "training", "seg_train", "train_set", "training_set", "trainset", "train_data", "train_images"),
    "validation": ("validation", "val", "valid", "seg_val", "validation_set", "val_set", "valid_set", "val_images"),
    "test": ("test", "testing", "seg_test", "test_set", "testing_set", "testset", "test_data", "test_images"),
}


def find_splits(data_dir: Path) -> dict[str, Path]:
    """The folders of `data_dir` that are called like splits, by "train", "validation" and "test".

    Raises:
        UserError: if `data_dir` is not a folder that can be listed.
    """
    if not data_dir.is_dir():
        missing = f"no data folder {printable(data_dir)}"
        wrong = not_found("folder", data_dir) if os.path.lexists(data_dir) else missing
        raise UserError(f"{wrong}; give a folder that holds train/<class>/<image> and test/…, or <class>/<image>")
    found, folders = {}, class_folders(data_dir)
    for split, names in SPLITS.items():
        matching = _called(names, folders)
        if matching and not (split == "train" and _is_class(data_dir, matching[0], folders)):
            path = data_dir / matching[0]
            while len(inside := class_folders(path)) == 1 and _called(names, inside):  # seg_train/seg_train/<class>
                path = path / inside[0]
            found[split] = path
    return found


def _is_class(data_dir: Path, name: str, folders: Sequence[str]) -> bool:
    """Whether a folder that is called like the train split is a class, such as the trains among vehicles.

    It holds images and no folders, and so does a folder beside it that is not called like a split. A folder "test" of
    such images is not a class: they are more probably images without labels.
    """

    def holds_images(folder: str) -> bool:
        return not class_folders(data_dir / folder) and bool(_images_in(data_dir / folder))

    others = [other for other in folders if not any(_called(names, [other]) for names in SPLITS.values())]
    return bool(others) and holds_images(name) and any(map(holds_images, others))


def _called(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Those of `folders` with one of `names`, in the order of `names`."""
    plain = {folder: folder.lower().replace("-", "_").replace(" ", "_") for folder in folders}
    matching = [folder for folder in folders if plain[folder] in names]
    return sorted(matching, key=lambda folder: (names.index(plain[folder]), folder not in names))


def find_split(data_dir: Path, split: str) -> Path:
    """The folder of `split`, "train", "validation" or "test", in `data_dir`.

    Raises:
        UserError: if it is not there.
    """
    splits = find_splits(data_dir)
    if split not in splits:
        present = f"has {_listed(splits)} only" if splits else "has no splits"
        raise UserError(
            f"no {split} split in {printable(data_dir)}, which {present}; it should hold {split}/<class>/<image>"
        )
    return splits[split]


def require_folders(data_dir: Path) -> None:
    """Raise UserError if `data_dir` holds torchvision's CIFAR files, where folders of images are needed."""
    if (name := cifar_folder(data_dir)) is not None:
        raise UserError(
            f"{printable(data_dir / name)} holds CIFAR's own files; this command takes folders of images, as "
            "DIR/train/<class>/<image> or DIR/<class>/<image>"
        )


def _listed(splits: Mapping[str, Path]) -> str:
    return ", ".join(printable(path.name) for path in splits.values())


def split_name(split: str) -> str:
    """ "train", "validation" or "test" for any name that people give to this split; other names stay."""
    return next((known for known, names in SPLITS.items() if _called(names, [split])), split)


def has_split(data_dir: Path, split: str) -> bool:
    """Whether the split is there, without reading an image."""
    if cifar_folder(data_dir) is not None:
        return split in ("train", "test")
    return data_dir.is_dir() and split in find_splits(data_dir)


def require_split(data_dir: Path, split: str) -> None:
    """Raise UserError, naming what is missing, unless the split is there, in folders or in CIFAR files."""
    if not has_split(data_dir, split):
        find_split(data_dir, split)


def split_folder(data_dir: Path, split: str) -> Path:
    """The folder of `split` in `data_dir`; for "test" `data_dir` itself, if it holds class folders and no split.

    Args:
        split: "train", "validation" or "test", by any of their names; or another folder of `data_dir`.

    Raises:
        UserError: if there is neither.
    """
    splits = find_splits(data_dir)
    name = split_name(split)
    if name in splits:
        return splits[name]
    if name not in SPLITS and name in class_folders(data_dir):
        return data_dir / name
    if splits:
        raise UserError(f"{printable(data_dir)} has no split {split!r}; it has {_listed(splits)}")
    check_class_folders(data_dir)
    if name != "test":
        raise UserError(
            f"{printable(data_dir)} holds classes and no splits, so it has no split {split!r}; leave the split out, "
            "or give test, for all images"
        )
    return data_dir


def check_class_folders(data_dir: Path) -> None:
    """Refuse a folder without splits whose children are no class folders.

    Raises:
        UserError: if it has no folders; or if its folders hold no images themselves but several folders, so that they
            may be splits under names that are not known.
    """
    names = class_folders(data_dir)
    if not names:
        raise UserError(f"{printable(data_dir)} has no folders; expected {printable(data_dir)}/<class>/<image>")
    inside = {name: class_folders(data_dir / name) for name in names}
    if max(map(len, inside.values())) > 1 and not any(_images_in(data_dir / name) for name in names):
        example = next(name for name in names if len(inside[name]) > 1)
        raise UserError(
            f"the folders {printable(shorten(names))} in {printable(data_dir)} hold only folders, as "
            f"{printable(example)} holds {printable(shorten(inside[example]))}: if they are splits, call them train, "
            "validation and test; if one of them holds the classes, give that folder; if they are the classes, put "
            "them into a folder train"
        )


def _images_in(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if Path(name).suffix.lower() in SUFFIXES and not is_hidden(name)]


def check_out(out: Path, data_dir: Path) -> None:
    """Refuse a folder for a new run that is inside the folder of the images: its files could be taken for images.

    Raises:
        UserError: if `out` is `data_dir` or a folder below it.
    """
    if data_dir.is_dir() and out.resolve().is_relative_to(data_dir.resolve()):
        raise UserError(f"--out {out} is inside --data-dir {printable(data_dir)}; give a folder outside of the images")
