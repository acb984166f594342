"""The folder path: files are decoded and transformed as PIL images by worker processes, as timm does.

timm's transforms, collation and prefetching loader; where a recipe says `crop_padding` or `policy`, torchvision's
transform takes the place of timm's. What is drawn for an image in a worker comes from (seed, epoch, image) alone, so
that neither the number of workers nor a resume changes it; cutout and random erasing follow on the device, from
(seed, epoch) and the batch's place in the epoch.
Shapes: N files of a set, B of a process' batch, H x W pixels.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.loader import PrefetchLoader, fast_collate
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms

from seattn._image_set import FileSet, Size, read_rgb, squash
from seattn._memory_data import Finish, Share, scaled
from seattn._sampling import epoch_order, stream, stream_seed
from seattn.errors import UserError
from seattn.policy import torchvision_policy
from seattn.recipe import Recipe

Transform = Callable[[Image.Image], Tensor]  # to (3, H, W) uint8
Key = tuple[int, int, Size]  # epoch, image, the size to train at
UNREADABLE = -1  # in place of the label: an exception out of a worker would come with the worker's traceback


def train_transform(recipe: Recipe, cfg: Mapping[str, Any], size: Size) -> Transform:
    """The recipe's transform of a training image to (3, *size) uint8.

    Args:
        cfg: of the model; a padded crop is to its input size, and is then resized to `size`.
    """
    crop, colours, to_tensor = create_transform(
        (3, *size),
        is_training=True,
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        vflip=recipe.vflip,
        color_jitter=recipe.color_jitter or 0.0,
        auto_augment=recipe.aa,
        interpolation=recipe.train_interpolation,
        mean=cfg["mean"],
        use_prefetcher=True,
        separate=True,
    )
    if recipe.seattn.crop_padding is not None:
        own: Size = tuple(cfg["input_size"][1:])
        border = {"black": "constant", "reflect": "reflect"}[recipe.seattn.crop_border]
        cut = transforms.RandomCrop(own, padding=recipe.seattn.crop_padding, padding_mode=border)
        padded = [cut, *crop.transforms[1:]]
        smaller = [] if size == own else [transforms.Resize(size, antialias=True)]
        crop = transforms.Compose([_Squash(own), *padded, *smaller])
    if recipe.seattn.policy:
        colours = torchvision_policy(recipe.seattn.policy)
    transform: Transform = transforms.Compose([crop, colours, to_tensor])
    return transform


def eval_transform(cfg: Mapping[str, Any]) -> Transform:
    """timm's evaluation transform of the model with that cfg, to (3, H, W) uint8."""
    transform: Transform = create_transform(**resolve_data_config(pretrained_cfg=dict(cfg)), use_prefetcher=True)
    return transform


class _Squash:
    """A class, for workers that are sent what they need."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        fitted: Image.Image = squash(self.size)(image)
        return fitted


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
    """Training batches of a `FileSet`, as `seattn.data.TrainSplit` says."""

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
    """Batches of a `FileSet` in its order, as `seattn.data.EvalSplit` says."""

    def __init__(
        self, files: FileSet, batch_size: int, workers: int, cfg: Mapping[str, Any], device: torch.device
    ) -> None:
        self.labels, self.class_names = files.labels, files.class_names
        dataset = _EvalFiles(files, eval_transform(cfg), tuple(cfg["input_size"][1:]))
        readable = _Readable(_loader(dataset, workers, device, batch_size=batch_size), files)
        self._on_device = PrefetchLoader(cast(Any, readable), cfg["mean"], cfg["std"], device=device)

    def __len__(self) -> int:
        return len(self.labels)

    def in_order(self) -> Iterator[Tensor]:
        """Every image once: (B, 3, H, W)."""
        for x, _ in self._on_device:
            yield x.contiguous(memory_format=torch.channels_last)
