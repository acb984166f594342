"""Labelled images: which files are images, how a file is read, CIFAR's own files, and the held-out part.

Shapes: N images of a set, C channels, H x W pixels.
"""

import logging
import mmap
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision import datasets

from seattn.core.errors import UserError, first_line, shorten
from seattn.core.files import printable

Size = tuple[int, int]  # H, W
Fit = Callable[[Image.Image], Any]  # to an image or array of the size that a set is stored in

# Still images that Pillow opens by itself. It also lists suffixes of documents, videos and containers (.pdf .mpg .h5).
SUFFIXES = frozenset(
    ".apng .avif .avifs .bmp .dib .gif .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .pbm .pcx .pfm .pgm "  # noqa: SIM905  # 31 lines as a list
    ".png .pnm .ppm .psd .qoi .sgi .tga .tif .tiff .webp".split()
)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # PIL's mode of an image by its number of channels
SKIP_BAD = "; replace or remove it, or leave such images out with --skip-bad"

_CIFAR = {"cifar-10-batches-py": datasets.CIFAR10, "cifar-100-python": datasets.CIFAR100}
_SEVERAL_PAGES = frozenset({"TIFF", "GIF", "PNG", "WEBP", "AVIF"})  # not MPO: its second image is a camera's preview
_logger = logging.getLogger("seattn")
_pages_reported = mmap.mmap(-1, 1)  # a byte that forked worker processes share


@dataclass(frozen=True)
class ImageSet:
    """Images (N, H, W, C) uint8, labels (N,) int64, and the class that each label stands for."""

    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: torch.Tensor) -> "ImageSet":
        """The images at `index` (int64), in that order."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def read(self, index: int, mode: str) -> Image.Image:
        """One image in PIL's `mode`."""
        return Image.fromarray(self.images[index].squeeze(-1).numpy()).convert(mode)


@dataclass(frozen=True)
class FileSet:
    """N image files, labels (N,) int64, the class that each label stands for, and whether EXIF rotates the images."""

    paths: tuple[Path, ...]
    labels: torch.Tensor
    class_names: tuple[str, ...]
    exif: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: torch.Tensor) -> "FileSet":
        """The files at `index` (int64), in that order."""
        return replace(self, paths=tuple(self.paths[i] for i in index.tolist()), labels=self.labels[index])

    def read(self, index: int, mode: str) -> Image.Image:
        """One image in PIL's `mode`; raises `UserError` if it cannot be read."""
        return read_image(self.paths[index], mode, exif=self.exif)


AnySet = TypeVar("AnySet", ImageSet, FileSet, ImageSet | FileSet)


def read_image(path: Path, mode: str = "RGB", *, exif: bool = True) -> Image.Image:
    """The image in `path`, upright, with 8 bits a channel, in PIL's `mode`. Every command uses this function.

    If there are several pages or frames, the first is read, with one warning. 16-bit grey levels are scaled from
    0..65535 to 0..255, and floats from 0..1.

    Args:
        exif: rotate and mirror the image by its EXIF orientation, which timm and torchvision do not do.

    Raises:
        UserError: naming the file, if it is missing, cannot be decoded, or has levels outside its range.
    """
    if not os.path.isfile(path):  # also for a path that the system refuses, where Path.is_file raises
        raise UserError(_why_no_file(path))
    try:
        with open_image(path) as image:
            if image.format in _SEVERAL_PAGES and getattr(image, "n_frames", 1) > 1:
                _say_first_page(path)
            image.load()
            return _to_8_bits(_upright(image) if exif else image).convert(mode)
    except Exception as error:  # decoders raise errors of all types for damaged images
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"cannot read image {printable(path)}: {reason}") from error


def open_image(path: Path) -> Image.Image:
    """Pillow's image of the file, of which only the header is read; Pillow's errors are of any type."""
    return Image.open(path, formats=_decoders())


@cache
def _decoders() -> list[str]:
    """Pillow's formats behind `SUFFIXES`, in its own order.

    Without this list Pillow would choose by the content among all formats that it has: PostScript in a file .png would
    start Ghostscript.
    """
    Image.init()
    ours = {Image.EXTENSION[suffix] for suffix in SUFFIXES & Image.EXTENSION.keys()}
    return [name for name in Image.ID if name in ours]


def _why_no_file(path: Path) -> str:
    name = printable(path)
    if os.path.isdir(path):
        return f"cannot read image {name}: it is a folder; give the image files in it"
    if os.path.exists(path):
        return f"cannot read image {name}: it is not a plain file"
    try:
        path.lstat()
    except FileNotFoundError:
        return f"no such image file: {name}"
    except (OSError, ValueError) as error:
        return f"cannot read image {name}: {getattr(error, 'strerror', None) or error}"
    return f"cannot read image {name}: it is a link to {printable(path.readlink())}, which does not exist"


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises errors of many kinds for damaged EXIF data; the pixels are good
        return image


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey levels of 16 or 32 bits or floats as 0..255; other modes have 8 bits already."""
    if image.mode == "F":
        levels, largest = np.asarray(image), 1.0
    elif image.mode == "I" or image.mode.startswith("I;16"):
        levels, largest = np.asarray(image).astype(np.int64), 65535
    else:
        return image
    low, high = levels.min(), levels.max()
    if not (low >= 0 and high <= largest):  # also false for NaN
        kind = "floating-point" if image.mode == "F" else "integer"
        raise ValueError(
            f"its {kind} grey levels range from {low:g} to {high:g}, and 0 to {largest:g} can be read; save it rescaled"
        )
    return Image.fromarray(np.rint(levels * (255 / largest)).astype(np.uint8))


def _say_first_page(path: Path) -> None:
    if not _pages_reported[0]:
        _pages_reported[0] = 1
        _logger.warning(
            "%s has several pages or frames; the first one is read, here and in other such files", printable(path)
        )


def read_sizes(files: FileSet) -> list[Size | None]:
    """Decode each image once: its (H, W), or None if it cannot be read."""

    def size(index: int) -> Size | None:
        try:
            image = files.read(index, "RGB")
        except UserError:
            return None
        return image.height, image.width

    with ThreadPoolExecutor() as pool:
        return list(pool.map(size, range(len(files))))


def leave_out_unreadable(
    files: FileSet, split: str, *, sizes: Sequence[Size | None] = (), warn: bool = True
) -> FileSet:
    """Leave out the images that cannot be read, and count them; without `sizes`, each image is decoded once for this.

    Raises:
        UserError: if none can be read.
    """
    sizes = sizes or read_sizes(files)
    bad = [printable(path) for path, size in zip(files.paths, sizes, strict=True) if size is None]
    if len(bad) == len(files):
        raise UserError(f"none of the {len(files)} {split} images can be read; the first is {bad[0]}")
    if bad and warn:
        _logger.warning(
            "%d of %d %s images cannot be read and are left out: %s", len(bad), len(files), split, shorten(bad)
        )
    return files.subset(torch.tensor([i for i, size in enumerate(sizes) if size is not None], dtype=torch.int64))


def squash(size: Size) -> Fit:
    """Resize to exactly `size`, bicubic, without keeping the aspect."""

    def fit(image: Image.Image) -> Image.Image:
        width_and_height = (size[1], size[0])
        return image if image.size == width_and_height else image.resize(width_and_height, Image.Resampling.BICUBIC)

    return fit


def decode(files: FileSet, size: Size, fit: Fit | None = None, *, mode: str = "RGB") -> ImageSet:
    """All images of `files`, brought to `size` by `fit`; by default squashed to it.

    Raises:
        UserError: naming the first image that cannot be read.
    """
    fit = fit or squash(size)
    images = torch.empty((len(files), *size, len(mode)), dtype=torch.uint8)  # a letter of RGBA is a channel
    rows = images.numpy()

    def read(index: int) -> None:
        rows[index] = np.asarray(fit(files.read(index, mode))).reshape(rows.shape[1:])

    with ThreadPoolExecutor() as pool:
        try:
            list(pool.map(read, range(len(files))))
        except UserError as error:
            raise UserError(f"{error}{SKIP_BAD}") from error
    return ImageSet(images, files.labels, files.class_names)


def cifar_folder(data_dir: Path) -> str | None:
    """The folder of torchvision's CIFAR files in `data_dir`, if it has one; "." if `data_dir` is this folder itself.

    Raises:
        UserError: if `data_dir` has the files of both sets.
    """
    if data_dir.is_dir() and cifar_place(data_dir).name in _CIFAR:
        return "."
    found = [name for name in _CIFAR if (data_dir / name).is_dir()]
    if len(found) > 1:
        either = " or ".join(printable(data_dir / name) for name in found)
        raise UserError(f"{printable(data_dir)} has the files of CIFAR-10 and of CIFAR-100; give {either}")
    return found[0] if found else None


def cifar_place(folder: Path) -> Path:
    """The absolute path of a folder, under a link's own name if that is the name of CIFAR's files."""
    path = folder.absolute()
    return path if path.name in _CIFAR else path.resolve()


def load_cifar(data_dir: Path, split: str, size: Size = (32, 32), *, mode: str = "RGB") -> ImageSet:
    """The images of the split "train" or "test" of torchvision's CIFAR files.

    Raises:
        UserError: if there is no such split, a file is missing or altered, or `size` is not CIFAR's.
    """
    folder = cifar_folder(data_dir)
    assert folder is not None
    if split not in ("train", "test"):
        raise UserError(f"{data_dir / folder} has no split {split!r}; it has train and test")
    if size != (32, 32):
        raise UserError(f"CIFAR's images are 32 x 32, the model's input is {size[0]} x {size[1]}; use an image folder")
    place = cifar_place(data_dir / folder)
    try:
        files = _CIFAR[place.name](str(place.parent), train=split == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"the CIFAR files in {data_dir / folder} are missing or altered; unpack the original archive there"
        ) from error
    images = ImageSet(torch.from_numpy(files.data), torch.tensor(files.targets), tuple(files.classes))
    if mode == "RGB":
        return images
    converted = np.stack([np.asarray(images.read(i, mode)) for i in range(len(images))])
    return replace(images, images=torch.from_numpy(converted).view(len(images), *size, len(mode)))


def hold_out(train: AnySet, fraction: float, seed: int) -> tuple[AnySet, AnySet]:
    """Split `train` into (training images, held-out images); the second gets `fraction` of each class.

    The same seed gives the same images; a fraction of 0 holds out none.

    Raises:
        UserError: if a class has too few images for both parts.
    """
    from sklearn.model_selection import train_test_split  # slow to import, and not needed to read an image

    if fraction == 0:
        return train, train.subset(torch.arange(0))
    try:
        training, held_out = train_test_split(
            np.arange(len(train)), test_size=fraction, random_state=seed, stratify=train.labels.numpy()
        )
    except ValueError as error:
        few = f"each part must have an image of each of the {len(train.labels.unique())} classes, and a class two"
        raise UserError(f"cannot hold out {fraction:g} of {len(train)} training images: {few}") from error
    return train.subset(torch.from_numpy(np.sort(training))), train.subset(torch.from_numpy(np.sort(held_out)))
