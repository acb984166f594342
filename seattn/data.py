"""Images for training: an image folder or torchvision's CIFAR files, whole in memory as uint8.

CIFAR-size sets fit (50,000 images: 154 MB), and a batch is then cropped and flipped as one tensor, with no worker
processes beside the training.
Shapes: N images of a set, B of a batch, 3 channels, H x W pixels.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from sklearn.model_selection import train_test_split
from torchvision import datasets

from seattn.errors import UserError

_SUFFIXES = frozenset(Image.registered_extensions())
_CIFAR = {"cifar-10-batches-py": datasets.CIFAR10, "cifar-100-python": datasets.CIFAR100}
_VALIDATION = ("validation", "val", "valid")  # as timm's image-folder reader spells it
_CPU = torch.device("cpu")
_MEMORY_LIMIT = 8 * 2**30  # bytes of decoded images in one set


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
    """Whether `load_split` would find that split, without reading an image."""
    if _cifar_folder(data_dir) is not None:
        return split in ("train", "test")
    try:
        find_split(data_dir, split)
    except UserError:
        return False
    return True


def load_split(data_dir: Path, split: str, size: tuple[int, int]) -> ImageSet:
    """Decode one split; images of another size than `size` (H, W) are resized to it, bicubic.

    Raises:
        UserError: naming what is missing, empty, unreadable or too large for memory.
    """
    cifar = _cifar_folder(data_dir)
    if cifar is not None:
        return _load_cifar(data_dir, cifar, split, size)
    return load_folder(find_split(data_dir, split), size)


def load_folder(folder: Path, size: tuple[int, int]) -> ImageSet:
    """Decode `folder`/<class>/<image>, classes in sorted order.

    Raises:
        UserError: if there is no class folder or no image, an image is unreadable, or all are too large for memory.
    """
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in _SUFFIXES
    ]
    if not files:
        raise UserError(f"no images in {folder}; it should hold <class>/<image> of a kind that Pillow reads")
    needed = len(files) * size[0] * size[1] * 3
    if needed > _MEMORY_LIMIT:
        limit = _MEMORY_LIMIT / 2**30
        raise UserError(
            f"{len(files)} images of {size[0]} x {size[1]} in {folder} need {needed / 2**30:.1f} GiB, more than the "
            f"{limit:.0f} GiB that are kept in memory; train on them with timm's train.py and the same recipe"
        )
    with ThreadPoolExecutor() as pool:
        arrays = list(pool.map(lambda item: _decode(item[0], size), files))
    labels = torch.tensor([label for _, label in files])
    return ImageSet(torch.from_numpy(np.stack(arrays)), labels, tuple(classes))


def _decode(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise UserError(f"cannot read image {path}: {error}; replace or remove it") from error
    if rgb.size != (size[1], size[0]):
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(rgb)


def _cifar_folder(data_dir: Path) -> str | None:
    return next((name for name in _CIFAR if (data_dir / name).is_dir()), None)


def _load_cifar(data_dir: Path, folder: str, split: str, size: tuple[int, int]) -> ImageSet:
    if size != (32, 32):
        raise UserError(f"CIFAR's images are 32 x 32, the model's input is {size[0]} x {size[1]}; use an image folder")
    try:
        files = _CIFAR[folder](str(data_dir), train=split == "train", download=False)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"CIFAR files in {data_dir / folder} are missing or altered ({error}); unpack the original archive there"
        ) from error
    return ImageSet(torch.from_numpy(files.data), torch.tensor(files.targets), tuple(files.classes))


def hold_out(train: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split off `fraction` of the images, each class by its share; the same images for the same seed.

    Raises:
        UserError: if a class has too few images to stand on both sides.
    """
    try:
        kept, held = train_test_split(
            np.arange(len(train)), test_size=fraction, random_state=seed, stratify=train.labels.numpy()
        )
    except ValueError as error:
        raise UserError(f"cannot hold out {fraction:g} of {len(train)} training images: {error}") from error
    return train.subset(torch.from_numpy(np.sort(kept))), train.subset(torch.from_numpy(np.sort(held)))


@dataclass(frozen=True)
class Batches:
    """Turns an `ImageSet` into normalised float batches (B, 3, H, W), channels last in memory.

    Args:
        mean, std: of pixel values in 0..1, one a channel.
    """

    data: ImageSet
    batch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device = _CPU

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        mean = torch.tensor(self.mean, device=self.device) * 255
        scale = 1 / (torch.tensor(self.std, device=self.device) * 255)
        x = (images.to(self.device).float() - mean) * scale  # (B, H, W, 3)
        return x.permute(0, 3, 1, 2)  # (B, 3, H, W)

    def in_order(self) -> Iterator[torch.Tensor]:
        """Every image once, as it is, in the set's order."""
        return map(self._normalise, self.data.images.split(self.batch_size))

    def shuffled(
        self, generator: torch.Generator, *, padding: int, hflip: float
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch: shuffled, cropped from a black border of `padding` pixels, mirrored with probability `hflip`.

        All randomness comes from `generator`. A last batch that is not full is left out, as in timm's loader.
        """
        order = torch.randperm(len(self.data), generator=generator)
        for index in order.split(self.batch_size):
            if len(index) < self.batch_size:
                break
            images = random_crop(self.data.images[index], padding, generator)
            images = random_hflip(images, hflip, generator)
            yield self._normalise(images), self.data.labels[index].to(self.device)

    def __len__(self) -> int:
        """Full batches in an epoch."""
        return len(self.data) // self.batch_size


def random_crop(images: torch.Tensor, padding: int, generator: torch.Generator) -> torch.Tensor:
    """Shift each image (B, H, W, 3) by up to `padding` pixels each way over black; one draw an image and axis."""
    if padding == 0:
        return images
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))  # (B, H + 2p, W + 2p, 3)
    top = torch.randint(2 * padding + 1, (count, 1), generator=generator)
    left = torch.randint(2 * padding + 1, (count, 1), generator=generator)
    rows = (top + torch.arange(height))[:, :, None]  # (B, H, 1)
    columns = (left + torch.arange(width))[:, None, :]  # (B, 1, W)
    return padded[torch.arange(count)[:, None, None], rows, columns]  # (B, H, W, 3)


def random_hflip(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image (B, H, W, 3) left to right with the given probability."""
    flip = torch.rand(len(images), generator=generator) < probability
    return torch.where(flip[:, None, None, None], images.flip(2), images)
