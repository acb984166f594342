"""Labelled images, as files or decoded: decoding, CIFAR's own files, holding out.

Shapes: N images of a set, H x W pixels.
"""

import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torchvision import datasets

from seattn.core.errors import UserError

Size = tuple[int, int]  # H, W
Fit = Callable[[Image.Image], Any]  # to an image or array of the size that a set is kept at

_CIFAR = {"cifar-10-batches-py": datasets.CIFAR10, "cifar-100-python": datasets.CIFAR100}
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageSet:
    """Images (N, H, W, 3) uint8, labels (N,) int64, and the class that each label stands for."""

    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: torch.Tensor) -> "ImageSet":
        """The images that `index` (int64) names, in its order."""
        return ImageSet(self.images[index], self.labels[index], self.class_names)


@dataclass(frozen=True)
class FileSet:
    """N image files, labels (N,) int64, and the class that each label stands for."""

    paths: tuple[Path, ...]
    labels: torch.Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: torch.Tensor) -> "FileSet":
        """The files that `index` (int64) names, in its order."""
        return FileSet(tuple(self.paths[i] for i in index.tolist()), self.labels[index], self.class_names)


AnySet = TypeVar("AnySet", ImageSet, FileSet)


def read_rgb(path: Path) -> Image.Image:
    """The decoded image in `path`.

    Raises:
        UserError: naming the file, if it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            rgb: Image.Image = image.convert("RGB")
            return rgb
    except DECODE_ERRORS as error:
        raise UserError(
            f"cannot read image {path}: {error}; replace or remove it, or leave such images out with --skip-bad"
        ) from error


def squash(size: Size) -> Fit:
    """Resize to exactly `size`, bicubic, whatever the aspect."""

    def fit(image: Image.Image) -> Image.Image:
        wanted = (size[1], size[0])
        return image if image.size == wanted else image.resize(wanted, Image.Resampling.BICUBIC)

    return fit


def decode(files: FileSet, size: Size, fit: Fit | None = None) -> ImageSet:
    """All images of `files`, brought to `size` by `fit`; by default squashed to it.

    Raises:
        UserError: naming the first image that cannot be read.
    """
    fit = fit or squash(size)
    images = torch.empty((len(files), *size, 3), dtype=torch.uint8)
    rows = images.numpy()

    def read(item: tuple[int, Path]) -> None:
        rows[item[0]] = np.asarray(fit(read_rgb(item[1])))

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(read, enumerate(files.paths)):
            pass  # the first error is raised here
    return ImageSet(images, files.labels, files.class_names)


def cifar_folder(data_dir: Path) -> str | None:
    """The folder of torchvision's CIFAR files in `data_dir`, if it has one."""
    return next((name for name in _CIFAR if (data_dir / name).is_dir()), None)


def load_cifar(data_dir: Path, folder: str, split: str, size: Size) -> ImageSet:
    """The images of torchvision's CIFAR files.

    Raises:
        UserError: if a file is missing or altered, or `size` is not CIFAR's.
    """
    if size != (32, 32):
        raise UserError(f"CIFAR's images are 32 x 32, the model's input is {size[0]} x {size[1]}; use an image folder")
    try:
        files = _CIFAR[folder](str(data_dir), train=split == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"CIFAR files in {data_dir / folder} are missing or altered ({error}); unpack the original archive there"
        ) from error
    return ImageSet(torch.from_numpy(files.data), torch.tensor(files.targets), tuple(files.classes))


def hold_out(train: AnySet, fraction: float, seed: int) -> tuple[AnySet, AnySet]:
    """Split off `fraction` of the images, each class by its share; the same images for the same seed; 0: none.

    Raises:
        UserError: if a class has too few images to stand on both sides.
    """
    from sklearn.model_selection import train_test_split  # not for whoever only reads an image

    if fraction == 0:
        return train, train.subset(torch.arange(0))
    try:
        kept, held = train_test_split(
            np.arange(len(train)), test_size=fraction, random_state=seed, stratify=train.labels.numpy()
        )
    except ValueError as error:
        raise UserError(f"cannot hold out {fraction:g} of {len(train)} training images: {error}") from error
    return train.subset(torch.from_numpy(np.sort(kept))), train.subset(torch.from_numpy(np.sort(held)))


def read_image(path: Path, mode: str) -> Image.Image:
    """The image in `path`, decoded and converted to PIL's `mode`.

    Raises:
        UserError: naming the file, if it is missing or cannot be decoded.
    """
    if not path.is_file():
        raise UserError(f"no such image file: {path}")
    try:
        with Image.open(path) as image:
            converted: Image.Image = image.convert(mode)
            return converted
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from error
