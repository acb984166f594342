"""Images that worker processes read when they are needed and transform as PIL images, as timm does.

Transforms, collation and the prefetching loader are timm's; if a recipe has `crop_padding` or `policy`, torchvision's
transform replaces timm's. The draws for a view of an image depend only on (seed, epoch, image, view): neither the
number of workers nor a resumed run changes the draws. Cutout and random erasing follow on the device, from (seed,
epoch) and the batch's place in the epoch.
Shapes: N images of a set, B of a process' batch, C channels, H x W pixels.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import numpy as np
import torch
from timm.data.loader import PrefetchLoader, fast_collate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seattn.core.errors import UserError
from seattn.core.files import printable
from seattn.core.recipe import Recipe
from seattn.data.images import SKIP_BAD, FileSet, ImageSet, Size
from seattn.data.memory import EvalSplit, Finish, TrainSplit, scaled
from seattn.data.sampling import stream, stream_seed
from seattn.data.transforms import Transform, channels_mode, eval_transform_uint8, train_transform

Key = tuple[int, int, int, Size]  # epoch, image, which of its views, the size to train at
UNREADABLE = -1  # instead of the label: an exception in a worker process would arrive with the worker's traceback


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch by `key`, and restore their states at the end."""
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


class _TrainImages(Dataset[tuple[Tensor, int]]):
    def __init__(self, files: FileSet, recipe: Recipe, config: Mapping[str, Any]) -> None:
        self.files, self.recipe, self.config = files, recipe, config
        self.mode = channels_mode(config["input_size"][0])
        self.transforms: dict[Size, Transform] = {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        epoch, index, view, size = key
        if size not in self.transforms:
            self.transforms[size] = train_transform(self.recipe, self.config, size)
        try:
            image = self.files.read(index, self.mode)
        except UserError:
            return torch.zeros((len(self.mode), *size), dtype=torch.uint8), UNREADABLE
        with seeded(self.recipe.seed, epoch, index, *([view] if view else [])):
            return self.transforms[size](image), int(self.files.labels[index])


class _EvalImages(Dataset[tuple[Tensor, int]]):
    def __init__(self, images: FileSet | ImageSet, config: Mapping[str, Any]) -> None:
        self.images, self.transform, self.shape = images, eval_transform_uint8(config), config["input_size"]
        self.mode = channels_mode(self.shape[0])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            return self.transform(self.images.read(index, self.mode)), int(self.images.labels[index])
        except UserError:
            return torch.zeros(self.shape, dtype=torch.uint8), UNREADABLE


class _Readable:
    """A loader's batches on the CPU, up to the first image that cannot be read, which raises.

    Args:
        remedy: added to the error message.

    `order` holds the indices of the images in the batches.
    """

    def __init__(self, loader: DataLoader[Any], images: FileSet | ImageSet, remedy: str = "") -> None:
        self.loader, self.images, self.remedy = loader, images, remedy
        self.order: list[int] | range = range(len(images))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for images, labels in self.loader:
            bad = (labels == UNREADABLE).nonzero().flatten().tolist()
            if bad:
                self._refuse(self.order[start + bad[0]])
            start += len(labels)
            yield images, labels

    def _refuse(self, index: int) -> NoReturn:
        assert isinstance(self.images, FileSet)
        try:
            self.images.read(index, "RGB")
        except UserError as error:
            raise UserError(f"{error}{self.remedy}") from error
        # The second attempt succeeded: the disk failed, not the file.
        raise UserError(f"image {printable(self.images.paths[index])} could not be read; try again")


def _loader(dataset: Dataset[Any], workers: int, device: torch.device, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=fast_collate,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # for the seeds of the workers, from which nothing here draws
        **options,
    )


def _to_device(batches: _Readable, config: Mapping[str, Any], device: torch.device) -> PrefetchLoader:
    """timm's loader around `batches`: normalised on the device."""
    channels = config["input_size"][0]
    return PrefetchLoader(cast(Any, batches), config["mean"], config["std"], channels=channels, device=device)


class FolderTrain(TrainSplit):
    """Training batches of a `FileSet`."""

    def __init__(
        self,
        files: FileSet,
        recipe: Recipe,
        config: Mapping[str, Any],
        device: torch.device,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(recipe, files.labels, device, rank, world)
        self.size: Size = tuple(config["input_size"][1:])
        # The batches of the current epoch. The worker processes stay for all epochs, so each key names its epoch.
        self._keys: list[list[Key]] = []
        loader = _loader(
            _TrainImages(files, recipe, config),
            recipe.workers,
            device,
            batch_sampler=self._keys,
            persistent_workers=recipe.workers > 0,
        )
        self._readable = _Readable(loader, files, SKIP_BAD)
        # One loader for all epochs: each has a CUDA stream, whose memory blocks the allocator gives to no other stream.
        self._on_device = _to_device(self._readable, config, device)

    def epoch(
        self, epoch: int, *, size: int | None = None, balanced: bool | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (B, C, H, W) and targets (B,) of that epoch."""
        generator, target_size = stream(self.recipe.seed, epoch), scaled(self.size, size)
        own = [batch[self._share.part].tolist() for batch in self._order(generator, balanced)]
        images = self.recipe.batch_size // self.views
        self._keys[:] = [[(epoch, index, i // images, target_size) for i, index in enumerate(batch)] for batch in own]
        self._readable.order = [index for batch in own for index in batch]
        finish = Finish(self.recipe, self._share, scaled_by=target_size[0] / self.size[0])
        for x, target in self._on_device:
            yield finish(x, generator), target


class FolderEval(EvalSplit):
    """Batches of a set in its order, each image through timm's evaluation transform.

    Args:
        remedy: added to the error message about an image that cannot be read.
    """

    def __init__(
        self,
        images: FileSet | ImageSet,
        batch_size: int,
        workers: int,
        config: Mapping[str, Any],
        device: torch.device,
        *,
        remedy: str = "",
    ) -> None:
        super().__init__(images)
        loader = _loader(_EvalImages(images, config), workers, device, batch_size=batch_size)
        self._on_device = _to_device(_Readable(loader, images, remedy), config, device)

    def in_order(self) -> Iterator[Tensor]:
        """Every image once: (B, C, H, W)."""
        for x, _ in self._on_device:
            yield x.contiguous(memory_format=torch.channels_last)
