"""A folder of images: where its splits are, which classes and files they hold, and which files are damaged."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from seattn.core.errors import UserError, shorten
from seattn.core.files import not_found, printable
from seattn.data.images import SUFFIXES, FileSet, Size, cifar_folder, leave_out_unreadable, read_sizes

# The names of a split's folder, in upper or lower case, with "-" or a space in place of "_"; the first found is taken.
SPLITS = {
    "train": ("train", "training", "seg_train", "train_set", "training_set", "trainset", "train_data", "train_images"),
    "validation": ("validation", "val", "valid", "seg_val", "validation_set", "val_set", "valid_set", "val_images"),
    "test": ("test", "testing", "seg_test", "test_set", "testing_set", "testset", "test_data", "test_images"),
}
# Copies, previews and waste that systems and servers put into folders; names that begin with a dot are hidden, too.
_NO_DATA = {"@eadir", "__macosx", "#recycle", "@recycle", "$recycle.bin", "#snapshot", "lost+found", "__pycache__"}
_NO_DATA |= {"system volume information", "thumbs.db", "desktop.ini"}
# A folder with two of these files is a run, a study or a search of ours, and no class.
_RUN_FILES = ("recipe.yaml", "summary.csv", "last.pth.tar", "model.safetensors", "result.json", "rows.csv", "study.db")
_logger = logging.getLogger("seattn")


def class_folders(folder: Path) -> tuple[str, ...]:
    """The sorted names of the folders in `folder`, without hidden folders, folders of systems, and runs of ours."""
    try:
        paths = [path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)]
        return tuple(sorted(path.name for path in paths if not _holds_runs(path)))
    except OSError as error:
        raise UserError(f"cannot list the folder {printable(error.filename or folder)}: {error.strerror}") from error


def is_run(folder: Path) -> bool:
    """Whether `folder` is that of a run, a study or a search, by its files."""
    return sum((folder / name).is_file() for name in _RUN_FILES) >= 2


def _holds_runs(folder: Path, depth: int = 3) -> bool:
    """Whether `folder` is a run, or holds no image and has runs at most `depth` levels below it."""
    if is_run(folder):
        return True
    found = False
    with os.scandir(folder) as entries:
        for entry in entries:
            if Path(entry.name).suffix.lower() in SUFFIXES:
                return False
            if depth and not found and entry.is_dir() and not is_hidden(entry.name):
                found = _holds_runs(Path(entry.path), depth - 1)
    return found


def check_out(out: Path, data_dir: Path) -> None:
    """Refuse a folder for a new run that is inside the folder of the images: its files could be taken for images.

    Raises:
        UserError: if `out` is `data_dir` or a folder below it.
    """
    if data_dir.is_dir() and out.resolve().is_relative_to(data_dir.resolve()):
        raise UserError(f"--out {out} is inside --data-dir {printable(data_dir)}; give a folder outside of the images")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or is known to hold no data."""
    return name.startswith(".") or name.lower() in _NO_DATA


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
        if matching := _called(names, folders):
            path = data_dir / matching[0]
            while len(inside := class_folders(path)) == 1 and _called(names, inside):  # seg_train/seg_train/<class>
                path = path / inside[0]
            found[split] = path
    return found


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


def _listed(splits: Mapping[str, Path]) -> str:
    return ", ".join(printable(path.name) for path in splits.values())


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
    """The folder of `split` in `data_dir`; or `data_dir` itself, if it holds class folders and no split.

    Args:
        split: "train", "validation" or "test", by any of their names; or another folder of `data_dir`.

    Raises:
        UserError: if there is neither.
    """
    splits = find_splits(data_dir)
    name = next((known for known, names in SPLITS.items() if _called(names, [split])), split)
    if name in splits:
        return splits[name]
    if name not in SPLITS and name in class_folders(data_dir):
        return data_dir / name
    if splits:
        raise UserError(f"{printable(data_dir)} has no split {split!r}; it has {_listed(splits)}")
    check_class_folders(data_dir)
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


def list_files(folder: Path, *, exif: bool = True) -> FileSet:
    """The images of `folder/<class>/<image>`, classes and files in sorted order; every command uses this function.

    Images at any depth of a class folder count, also in linked folders. Files without a suffix of images are ignored; a
    warning counts them.

    Raises:
        UserError: if there is no image, or if two class folders differ only in bytes that are not UTF-8.
    """
    if not folder.is_dir():
        raise UserError(f"{not_found('folder', folder)}; expected {printable(folder)}/<class>/<image>")
    classes = class_folders(folder)
    names = tuple(map(printable, classes))
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise UserError(f"two class folders in {printable(folder)} are both shown as {twice!r}; rename one in UTF-8")
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


def link_splits(
    images: UserImages,
    root: Path,
    seed: int,
    *,
    needed: Sequence[str] = ("test", "validation"),
    earlier: Path | None = None,
) -> None:
    """Link the images as `root/<split>/<class>/…`; images of train fill the splits that are missing.

    A split that is `needed` and missing gets a tenth of each class, at least one image; the same for the same seed.

    Args:
        earlier: a folder that this function made before: the images in it stay in their splits, for a net that was
            trained on them must not be tested on them.

    Raises:
        UserError: if a class has too few images for that, or the links cannot be made.
    """
    generator = torch.Generator().manual_seed(seed)
    missing = [name for name in needed if name not in images.splits]
    for split, files in images.splits.items():
        if split != "train":
            _link(images, split, range(len(files)), root / split)
    split_by_image = {} if earlier is None else _splits_by_image(earlier, (*missing, "train"))
    whole = images.splits["train"]
    for label, name in enumerate(images.class_names):
        index = (whole.labels == label).nonzero().flatten()
        if len(index) <= len(missing):
            raise UserError(
                f"class {name!r} needs {len(missing) + 1} or more images and has {len(index)}: "
                f"{printable(images.folders['train'])} has no {' and no '.join(missing)} split, which is taken from it"
            )
        order = index[torch.randperm(len(index), generator=generator)].tolist()
        share = max(1, round(len(order) / 10))
        parts: dict[str, list[int]] = {split: [] for split in ("train", *missing)}
        new: list[int] = []
        for i in order:
            parts.get(split_by_image.get(os.path.realpath(whole.paths[i]), ""), new).append(i)
        for split in missing:
            count = max(0, share - len(parts[split]))
            parts[split] += new[:count]
            new = new[count:]
        parts["train"] += new
        for split, chosen in parts.items():
            _link(images, "train", chosen, root / split)


def _splits_by_image(root: Path, splits: Sequence[str]) -> dict[str, str]:
    """The split of each image that `root/<split>/<class>/` links to, by its real path."""
    return {os.path.realpath(link): split for split in splits for link in (root / split).glob("*/*")}


def _link(images: UserImages, split: str, index: Iterable[int], target: Path) -> None:
    """Link images of a split into `target/<class>`, without further folders: timm takes an image's folder as its class.

    The name of a folder in a class folder becomes a part of the link's name; a name that is in use gets a number.
    """
    files, folder, names = images.splits[split], images.folders[split], images.class_folders[split]
    for name in names:
        (target / name).mkdir(parents=True, exist_ok=True)
    for i in index:
        path, name = files.paths[i], names[int(files.labels[i])]
        inside = path.relative_to(folder).parts
        if inside[0] == name:
            inside = inside[1:]
        flat = Path("__".join(inside))
        link = target / name / flat
        number = 1
        while link.is_symlink():
            number += 1
            link = target / name / f"{flat.stem}__{number}{flat.suffix}"
        try:
            link.symlink_to(path.absolute())
        except OSError as error:
            raise UserError(
                f"cannot link {printable(path)} into {printable(target)}: {error.strerror}; split the folder by hand"
            ) from error
