"""The folder path: files are decoded and transformed as PIL images by worker processes, as timm does.

timm's transforms, collation and prefetching loader; where a recipe says `crop_padding` or `policy`, torchvision's
transform takes the place of timm's. What is drawn for an image in a worker comes from (seed, epoch, image) alone, so
that neither the number of workers nor a resume changes it; cutout and random erasing follow on the device, from
(seed, epoch) and the batch's place in the epoch.
Shapes: N files of a set, B of a process' batch, H x W pixels.

Images to evaluate on, one at a time and of any size: files in class folders, or torchvision's CIFAR files.
A data set's item is an image (C, H, W) that went through the model's transform, and whether it could be read.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from timm.data.loader import PrefetchLoader, fast_collate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.datasets.folder import IMG_EXTENSIONS

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe
from seattn.data.folders import class_folders
from seattn.data.images import FileSet, ImageSet, Size, read_image, read_rgb
from seattn.data.memory import Finish, Share, scaled
from seattn.data.sampling import epoch_order, stream, stream_seed
from seattn.data.transforms import ImageTransform, Transform, eval_transform_uint8, train_transform

Key = tuple[int, int, Size]  # epoch, image, the size to train at
UNREADABLE = -1  # in place of the label: an exception out of a worker would come with the worker's traceback


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Python's, NumPy's and torch's global generators as `key` says; put back as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = stream_seed(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class _TrainFiles(Dataset[tuple[Tensor, int]]):
    def __init__(self, files: FileSet, recipe: Recipe, cfg: Mapping[str, Any]) -> None:
        self.paths, self.labels = files.paths, files.labels.tolist()
        self.recipe, self.cfg = recipe, cfg
        self.transforms: dict[Size, Transform] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        epoch, index, size = key
        if size not in self.transforms:
            self.transforms[size] = train_transform(self.recipe, self.cfg, size)
        try:
            image = read_rgb(self.paths[index])
        except UserError:
            return torch.zeros((3, *size), dtype=torch.uint8), UNREADABLE
        with seeded(self.recipe.seed, epoch, index):
            return self.transforms[size](image), self.labels[index]


class _EvalFiles(Dataset[tuple[Tensor, int]]):
    def __init__(self, files: FileSet, transform: Transform, size: Size) -> None:
        self.paths, self.labels, self.transform, self.size = files.paths, files.labels.tolist(), transform, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            return self.transform(read_rgb(self.paths[index])), self.labels[index]
        except UserError:
            return torch.zeros((3, *self.size), dtype=torch.uint8), UNREADABLE


class _Keys(Sampler[list[Key]]):
    """The batches of the epoch that is set: workers live on from epoch to epoch, and are told by these."""

    def __init__(self) -> None:
        self.batches: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Readable:
    """A loader's batches on the CPU, up to the first image that could not be read, which raises.

    `order` says which files the batches hold.
    """

    def __init__(self, loader: DataLoader[Any], files: FileSet) -> None:
        self.loader, self.files, self.order = loader, files, list(range(len(files)))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for images, labels in self.loader:
            if (labels == UNREADABLE).any():
                path = self.files.paths[self.order[start + int((labels == UNREADABLE).int().argmax())]]
                read_rgb(path)
                # The second attempt went well: the disk, not the file.
                raise UserError(f"image {path} could not be read; try again")
            start += len(labels)
            yield images, labels


def _loader(dataset: Dataset[Any], workers: int, device: torch.device, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=fast_collate,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # for the workers' own seeds, which nothing here draws from
        **options,
    )


class FolderTrain:
    """Training batches of a `FileSet`, as `seattn.data.open.TrainSplit` says."""

    def __init__(
        self,
        files: FileSet,
        recipe: Recipe,
        cfg: Mapping[str, Any],
        device: torch.device,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.recipe, self.labels = recipe, files.labels
        self.size: Size = tuple(cfg["input_size"][1:])
        self._share = Share(recipe.batch_size, device, rank, world)
        self._keys = _Keys()
        loader = _loader(
            _TrainFiles(files, recipe, cfg),
            recipe.workers,
            device,
            batch_sampler=self._keys,
            persistent_workers=recipe.workers > 0,
        )
        self._readable = _Readable(loader, files)
        # One for all epochs: each has a CUDA stream, whose blocks the allocator gives to no other.
        self._on_device = PrefetchLoader(cast(Any, self._readable), cfg["mean"], cfg["std"], device=device)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self) -> int:
        """Full global batches in an epoch."""
        return len(self) // self._share.whole

    def epoch(
        self, epoch: int, *, size: int | None = None, balanced: bool | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (B, 3, H, W) and targets (B,) of that epoch."""
        if balanced is None:
            balanced = self.recipe.seattn.sampling == "balanced"
        generator, target_size = stream(self.recipe.seed, epoch), scaled(self.size, size)
        order = epoch_order(self.labels, generator, balanced=balanced)
        mine = [batch[self._share.mine].tolist() for batch in order.split(self._share.whole)[: self.batches()]]
        self._keys.batches = [[(epoch, index, target_size) for index in batch] for batch in mine]
        self._readable.order = [index for batch in mine for index in batch]
        finish = Finish(self.recipe, self._share, scaled_by=target_size[0] / self.size[0])
        for x, target in self._on_device:
            yield finish(x, generator), target


class FolderEval:
    """Batches of a `FileSet` in its order, as `seattn.data.open.EvalSplit` says."""

    def __init__(
        self, files: FileSet, batch_size: int, workers: int, cfg: Mapping[str, Any], device: torch.device
    ) -> None:
        self.labels, self.class_names = files.labels, files.class_names
        dataset = _EvalFiles(files, eval_transform_uint8(cfg), tuple(cfg["input_size"][1:]))
        readable = _Readable(_loader(dataset, workers, device, batch_size=batch_size), files)
        self._on_device = PrefetchLoader(cast(Any, readable), cfg["mean"], cfg["std"], device=device)

    def __len__(self) -> int:
        return len(self.labels)

    def in_order(self) -> Iterator[Tensor]:
        """Every image once: (B, 3, H, W)."""
        for x, _ in self._on_device:
            yield x.contiguous(memory_format=torch.channels_last)


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
