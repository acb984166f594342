"""Images to evaluate on, one at a time and of any size: files in class folders, or torchvision's CIFAR files.

A data set's item is an image (C, H, W) that went through the model's transform, and whether it could be read.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from seattn.core.errors import UserError
from seattn.data.folders import class_folders
from seattn.data.images import ImageSet
from seattn.evaluation.prediction import ImageTransform, read_image

Item = tuple[torch.Tensor, bool]


class ImageFiles(Dataset[Item]):
    """Images under `folder`, classes in sorted order; an unreadable one is (zeros, False), for the caller to report."""

    def __init__(self, folder: Path, mode: str, transform: ImageTransform) -> None:
        if not folder.is_dir():
            raise UserError(f"no such folder: {folder}; expected {folder}/<class>/<image>")
        self.mode, self.transform = mode, transform
        self.class_names = class_folders(folder)
        self.paths: list[Path] = []
        self.labels: list[int] = []
        for label, name in enumerate(self.class_names):
            found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
            self.paths += found
            self.labels += [label] * len(found)
        if not self.paths:
            raise UserError(f"no images under {folder}; expected {folder}/<class>/<image>")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        try:
            return self.transform(read_image(self.paths[index], self.mode)), True
        except UserError:
            # An exception out of a worker process arrives with the worker's traceback for a message.
            return torch.zeros_like(self.transform(Image.new(self.mode, (32, 32)))), False


class DecodedImages(Dataset[Item]):
    """Images in memory; all of them can be read."""

    def __init__(self, images: ImageSet, mode: str, transform: ImageTransform) -> None:
        self.images, self.mode, self.transform = images.images.numpy(), mode, transform
        self.class_names, self.labels = images.class_names, images.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Item:
        return self.transform(Image.fromarray(self.images[index]).convert(self.mode)), True


def readable_batches(loader: DataLoader[Item], images: ImageFiles | DecodedImages) -> Iterator[torch.Tensor]:
    """The loader's batches (B, C, H, W), up to the first unreadable image, which raises."""
    start = 0
    for batch, readable in loader:
        if not readable.all():
            assert isinstance(images, ImageFiles)
            path = images.paths[start + int(readable.int().argmin())]
            read_image(path, images.mode)
            raise UserError(f"{path} could not be read")  # the second attempt went well: the disk, not the file
        start += len(batch)
        yield batch
