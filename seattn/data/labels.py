"""Labels in a file: a table of image names and classes, as Kaggle's data sets have them, beside a folder of images.

The table is text in UTF-8: CSV, or the same with semicolons, tabs, bars or spaces. Delimiter, header and columns are
found by the content: names of images are the column whose values name files in the folder.
"""

import csv
import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from seattn.core.errors import UserError, shorten
from seattn.core.files import is_one_line, printable
from seattn.core.records import read_text
from seattn.data.folders.classes import is_hidden
from seattn.data.folders.files import walk_images
from seattn.data.folders.reading import UserImages, read_images
from seattn.data.folders.splits import find_splits
from seattn.data.images import SUFFIXES, FileSet

_DELIMITERS = ",;\t| "
# Names of columns, without case and signs; of classes the first that is there is taken.
_IMAGE_COLUMNS = ("filename", "file", "image", "images", "imageid", "imagename", "imagepath", "filepath", "path", "id")
_CLASS_COLUMNS = (
    *("label", "labels", "class", "classes", "classname", "labelname", "category", "target", "species", "breed"),
    *("classid", "labelid", "diagnosis", "dx", "y"),
)
_ROWS_TRIED = 200  # rows by which the columns are found
_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class _Row:
    line: int
    cells: list[str]


def read_labels(file: Path, folder: Path, split: str = "train", *, exif: bool = True) -> FileSet:
    """The images that the table `file` names, in the order of the table; the class names are sorted.

    A name may have folders and a suffix, or leave them out if only one image has the name. If two images have it, the
    one in the folder of `split` is taken. Images that the table does not name are ignored.

    Raises:
        UserError: if the file is not such a table, an image is missing or named twice, or a row has no class; the
            message names the first three of them and their number.
    """
    if not folder.is_dir():
        raise UserError(
            f"no folder {printable(folder)}; give the folder of the images that {file} names with --data-dir"
        )
    images = _Images(folder, split)
    if not images.count:
        raise UserError(f"no images in {printable(folder)}; an image is a file such as .jpg, .png or .tif")
    header, rows = _table(file, images)
    image_column, class_column = _columns(file, header, rows, images)
    where = f"labels {file}"
    names = [row.cells[image_column] for row in rows]
    classes = [row.cells[class_column] for row in rows]
    _refuse(where, "no image", [f"line {row.line}" for row, name in zip(rows, names, strict=True) if not name])
    _refuse(where, "no class", [f"line {row.line}" for row, name in zip(rows, classes, strict=True) if not name])
    odd = [(row, name) for row, name in zip(rows, classes, strict=True) if not _is_folder_name(name)]
    _refuse(where, "a class that cannot be the name of a folder", [f"line {row.line}: {name!r}" for row, name in odd])
    paths = images.find_all(names)
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(rows)} images in {where} are not in {printable(folder)}, or their name fits "
            f"several files: {shorten(missing)}; give the folder of the images with --data-dir, or correct the names"
        )
    found = [path for path in paths if path is not None]
    first_lines: dict[Path, int] = {}
    twice = []
    for row, path in zip(rows, found, strict=True):
        if path in first_lines:
            twice.append(f"line {row.line}: {row.cells[image_column]}, as in line {first_lines[path]}")
        first_lines.setdefault(path, row.line)
    _refuse(where, "an image that another row has", twice)
    class_names = tuple(sorted(set(classes)))
    by_name = {name: label for label, name in enumerate(class_names)}
    ignored = images.count - len(found)
    _logger.info(
        "%s: %d images, classes in column %s%s",
        where,
        len(found),
        repr(header[class_column]) if header else class_column + 1,
        f"; {ignored} other images in {printable(folder)} are ignored" if ignored else "",
    )
    return FileSet(tuple(found), torch.tensor([by_name[name] for name in classes]), class_names, exif)


def read_labelled(
    data_dir: Path, labels: Path, test_labels: Path | None, *, skip_bad: bool, exif: bool = True
) -> UserImages:
    """The images below `data_dir` that tables name, each decoded once.

    Args:
        labels: the table of the training images, as for `read_labels`.
        test_labels: that of the test images, if there is one.

    Raises:
        UserError: for a bad table or a damaged image, if there is one class, or if a class of the test images is not
            one of the training images.
    """
    splits = {"train": read_labels(labels, data_dir, "train", exif=exif)}
    names = splits["train"].class_names
    if len(names) < 2:
        raise UserError(f"labels {labels}: all images have one class, {names[0]!r}; two or more are needed")
    if test_labels is not None:
        test = read_labels(test_labels, data_dir, "test", exif=exif)
        if strays := [name for name in test.class_names if name not in names]:
            raise UserError(f"labels {test_labels} have the class {strays[0]!r}, which {labels} do not have")
        numbers = torch.tensor([names.index(name) for name in test.class_names])
        splits["test"] = FileSet(test.paths, numbers[test.labels], names, exif)
    folders, class_folders = dict.fromkeys(splits, data_dir), dict.fromkeys(splits, names)
    return read_images(splits, folders, class_folders, skip_bad=skip_bad)


class _Images:
    """The images below a folder by each name that a table may give them."""

    def __init__(self, folder: Path, split: str) -> None:
        self._paths: dict[str, list[Path]] = defaultdict(list)
        self.count = 0
        for path in sorted(walk_images(folder, Counter())):
            self.count += 1
            parts = path.relative_to(folder).parts
            for start in range(len(parts)):  # train/cat/1.jpg, cat/1.jpg, 1.jpg, and each without its suffix
                name = unicodedata.normalize("NFC", "/".join(parts[start:]))  # macOS writes accents in two characters
                self._paths[name].append(path)
                self._paths[name.removesuffix(path.suffix)].append(path)
        self._folder = folder
        self._split = find_splits(folder).get(split)

    def find_all(self, names: Sequence[str]) -> list[Path | None]:
        """The image of each name; None for a name that no image or several images have.

        A table that was made elsewhere may have names with more folders; all names then lose the same number of them.
        """
        for dropped in range(max(map(len, map(_parts, names)))):
            paths = [self.find("/".join(_parts(name)[dropped:])) for name in names]
            if any(paths):
                return paths
        return [None] * len(names)

    def find(self, name: str) -> Path | None:
        """The image of that name; None if no image or several images have it."""
        plain = "/".join(_parts(name))
        paths = self._paths.get(plain, [])
        whole = [path for path in paths if len(path.relative_to(self._folder).parts) == len(_parts(name))]
        in_split = [path for path in paths if self._split is not None and self._split in path.parents]
        return next((found[0] for found in (whole, paths, in_split) if len(found) == 1), None)

    def holds(self, name: str) -> bool:
        """Whether an image has that name, possibly without some of its folders."""
        parts = _parts(name)
        return any("/".join(parts[start:]) in self._paths for start in range(len(parts)))


def _parts(name: str) -> list[str]:
    name = unicodedata.normalize("NFC", name).replace("\\", "/")
    return [part for part in name.split("/") if part not in ("", ".")]


def _table(file: Path, images: _Images) -> tuple[list[str], list[_Row]]:
    """The header, which is empty where there is none, and the rows of a table whose rows have the same length."""
    lines = read_text(file, "labels").splitlines()
    if lines and lines[0].startswith("sep="):  # a line that Excel writes and reads
        lines[0] = ""
    tables = [list(_rows(file, lines, delimiter)) for delimiter in _DELIMITERS]
    rows = max(tables, key=lambda rows: (_images_named(rows, images), _regularity(rows)))
    if not rows or len(rows[0].cells) < 2:
        raise UserError(f"labels {file} is not a table of images and classes; a row is for example: cat1.jpg,cat")
    columns = len(rows[0].cells)
    odd = [f"line {row.line}: {len(row.cells)} cells" for row in rows if len(row.cells) != columns]
    _refuse(f"labels {file}", f"other than {columns} cells", odd)
    if any(images.holds(cell) or Path(cell).suffix.lower() in SUFFIXES for cell in rows[0].cells):
        return [], rows
    known = {*_IMAGE_COLUMNS, *_CLASS_COLUMNS} & set(map(_plain, rows[0].cells))
    repeated = any(cell in row.cells for cell in rows[0].cells for row in rows[1:])
    return ([], rows) if repeated and not known else (rows[0].cells, rows[1:])


def _rows(file: Path, lines: Sequence[str], delimiter: str) -> Iterator[_Row]:
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            if any(cells):
                yield _Row(reader.line_num, [cell.strip() for cell in cells])
    except csv.Error as error:
        raise UserError(f"labels {file}, line {reader.line_num}, is not valid CSV: {error}") from error


def _images_named(rows: Sequence[_Row], images: _Images) -> int:
    """The number of the first rows of two or more cells in which a cell names an image."""
    return sum(len(row.cells) > 1 and any(map(images.holds, row.cells)) for row in rows[:_ROWS_TRIED])


def _regularity(rows: Sequence[_Row]) -> float:
    """The part of the rows that have as many cells as the first row; 0 if that has one cell."""
    if not rows or len(rows[0].cells) < 2:
        return 0.0
    return sum(len(row.cells) == len(rows[0].cells) for row in rows) / len(rows)


def _columns(file: Path, header: Sequence[str], rows: Sequence[_Row], images: _Images) -> tuple[int, int]:
    """The numbers of the columns with the images and with the classes, from 0."""
    if not rows:
        raise UserError(f"labels {file} has a header and no rows")
    columns, tried = range(len(rows[0].cells)), rows[:_ROWS_TRIED]
    names = list(map(_plain, header)) if header else [""] * len(columns)

    def is_image_column(column: int) -> tuple[bool, bool, int]:
        """The evidence, the strongest first: suffixes of images, the column's name, the number of names of files."""
        cells = [row.cells[column] for row in tried]
        with_suffix = sum(Path(cell).suffix.lower() in SUFFIXES for cell in cells)
        return with_suffix * 2 > len(cells), names[column] in _IMAGE_COLUMNS, sum(map(images.holds, cells))

    image_column = max(columns, key=is_image_column)
    others = [column for column in columns if column != image_column]
    candidates = [column for known in _CLASS_COLUMNS for column in others if names[column] == known]
    if len(others) == 1:
        candidates = others
    if not candidates:
        shown = ", ".join(filter(None, header)) or f"{len(columns)} columns without a header"
        raise UserError(f"labels {file} has no column of classes among {shown}; call that column label")
    return image_column, candidates[0]


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _is_folder_name(name: str) -> bool:
    return not is_hidden(name) and "/" not in name and is_one_line(name) and len(name.encode()) <= 255


def _refuse(where: str, wrong: str, places: Sequence[str]) -> None:
    if places:
        shown = "; ".join(places[:3]) + ("; …" if len(places) > 3 else "")
        count = "1 row has" if len(places) == 1 else f"{len(places)} rows have"
        raise UserError(f"{where}: {count} {wrong}: {shown}")
