"""The memory path: a decoded set on the device as uint8, augmented there in whole batches.

Random numbers are drawn for the global batch, that of all processes together, and each process takes its part. The
images and crops are therefore the same for any number of processes.
Shapes: N images of a set, B of a process' batch, G = B * world of the global batch, C channels, H x W pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from seattn.core.recipe import Recipe
from seattn.data import augment
from seattn.data.images import FileSet, ImageSet, Size
from seattn.data.policy import Policy
from seattn.data.sampling import epoch_order, stream

_FLIPS = -1  # in place of an epoch: the stream that draws the images that the first epoch mirrors


class Share:
    """The part of the draws for a global batch that one process takes."""

    def __init__(self, batch_size: int, device: torch.device, rank: int = 0, world: int = 1) -> None:
        self.global_size, self.device = batch_size * world, device
        self.part = slice(rank * batch_size, (rank + 1) * batch_size)

    def take(self, drawn: Tensor) -> Tensor:
        """The part (B, ...) of `drawn` (G, ...), on the device."""
        return drawn[self.part].to(self.device, non_blocking=True)


def scaled(size: Size, side: int | None) -> Size:
    """`size`, or the size with the height `side` and the same aspect."""
    return size if side is None else (side, round(side * size[1] / size[0]))


class TrainSplit:
    """A split to train on, by either path; `labels` (N,) int64 on the CPU.

    With `views` 2, a batch of size B holds B / 2 images, each augmented twice: image i is at i and at i + B / 2.
    """

    views = 1

    def __init__(self, recipe: Recipe, labels: Tensor, device: torch.device, rank: int, world: int) -> None:
        self.recipe, self.labels = recipe, labels.cpu()
        self._share = Share(recipe.batch_size, device, rank, world)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def batches(self) -> int:
        """Batches that one process yields an epoch: the full batches of batch_size * world images."""
        return len(self) // (self._share.global_size // self.views)

    def epoch(
        self, epoch: int, *, size: int | None = None, balanced: bool | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented, normalised batches (B, C, H, W), float32, channels last, and targets (B,), on the device.

        All randomness comes from (recipe.seed, epoch); each process gets its part of the global batch.

        Args:
            size: side to train at; None is the model's own.
            balanced: every class equally often; None is the recipe's choice.
        """
        raise NotImplementedError

    def _order(self, generator: torch.Generator, balanced: bool | None) -> Sequence[Tensor]:
        """The indices (G,) of each global batch; `balanced` None is the recipe's choice."""
        if balanced is None:
            balanced = self.recipe.seattn.sampling == "balanced"
        order = epoch_order(self.labels, generator, balanced=balanced)
        batches = order.split(self._share.global_size // self.views)[: self.batches()]
        return [batch.repeat(self.views) for batch in batches]


class EvalSplit:
    """A split to evaluate on, by either path; `labels` (N,) int64 on the CPU."""

    def __init__(self, images: ImageSet | FileSet) -> None:
        self.labels, self.class_names = images.labels.cpu(), images.class_names

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def in_order(self) -> Iterator[Tensor]:
        """Every image once, (B, C, H, W) on the device, through timm's evaluation transform."""
        raise NotImplementedError


class MemoryTrain(TrainSplit):
    """Training batches of an `ImageSet`.

    The crop is taken from the stored images. timm's scale and ratio resize it to the training size in one step; after a
    padded crop, which keeps the size, the batch is resized.
    """

    def __init__(
        self,
        data: ImageSet,
        recipe: Recipe,
        config: Mapping[str, Any],
        device: torch.device,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(recipe, data.labels, device, rank, world)
        self.mean, self.std = config["mean"], config["std"]
        self.size: Size = (data.images.shape[1], data.images.shape[2])
        self._images, self._labels = data.images.to(device), data.labels.to(device)

    def epoch(
        self, epoch: int, *, size: int | None = None, balanced: bool | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (B, C, H, W) and targets (B,) of that epoch."""
        recipe, share = self.recipe, self._share
        target_size = scaled(self.size, size)
        mirrored = self._mirrored(epoch)
        policy = Policy(recipe.seattn.policy, target_size) if recipe.seattn.policy else None
        generator = stream(recipe.seed, epoch)
        finish = Finish(recipe, share, scaled_by=target_size[0] / self.size[0])
        for global_batch in self._order(generator, balanced):
            index = share.take(global_batch)  # (B,)
            images = self._images[index]
            if mirrored is not None:
                images = augment.flip(images, mirrored[index], axis=2)
            images = self._augmented(images, target_size, policy, generator)
            x = augment.normalize(images, self.mean, self.std)  # (B, C, H, W)
            yield finish(x, generator), self._labels[index]

    def _mirrored(self, epoch: int) -> Tensor | None:
        """(N,) bool: the images that this epoch mirrors; None if each epoch draws its flips."""
        if self.recipe.seattn.flips == "random":
            return None
        first = augment.draw_flips(len(self), 0.5, stream(self.recipe.seed, _FLIPS))
        return (first ^ bool(epoch % 2)).to(self._images.device)

    def _augmented(
        self, images: Tensor, size: Size, policy: Policy | None, generator: torch.Generator
    ) -> Tensor:  # (B, H, W, C) uint8, before and after
        recipe, share, count = self.recipe, self._share, self._share.global_size
        padding = recipe.seattn.crop_padding
        if padding is None:
            boxes = augment.draw_boxes(count, self.size, recipe.scale, recipe.ratio, generator)
            chance = {"random": 0.5, "bilinear": 0.0, "bicubic": 1.0}[recipe.train_interpolation]
            bicubic = augment.draw_flips(count, chance, generator)
            images = augment.resized_crop(images, share.take(boxes), size, share.take(bicubic))
        elif padding:
            offsets = share.take(augment.draw_offsets(count, padding, generator))
            images = augment.crop_padded(images, offsets, padding, recipe.seattn.crop_border)
        hflip = recipe.hflip if recipe.seattn.flips == "random" else 0.0
        for axis, probability in ((2, hflip), (1, recipe.vflip)):
            if probability:
                flips = augment.draw_flips(count, probability, generator)
                images = augment.flip(images, share.take(flips), axis=axis)
        images = augment.resize(images, size)
        if policy is not None:
            operations, magnitudes = policy.draw(count, generator)
            images = policy.apply(images, operations[share.part], magnitudes[share.part])
        elif recipe.color_jitter:
            factors, order = augment.draw_jitter(count, recipe.color_jitter, generator)
            images = augment.color_jitter(images, share.take(factors), share.take(order))
        return images


class Finish:
    """Cutout and random erasing of a normalised batch on the device, for both paths.

    Args:
        scaled_by: training size over the model's own; the side of the cutout shrinks with it.
    """

    def __init__(self, recipe: Recipe, share: Share, *, scaled_by: float) -> None:
        self.recipe, self.share = recipe, share
        self.side = round(recipe.seattn.cutout * scaled_by)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:  # (B, C, H, W), before and after
        recipe, share, size = self.recipe, self.share, (x.shape[2], x.shape[3])
        if self.side:
            x = augment.erase(x, share.take(augment.draw_squares(share.global_size, self.side, size, generator)))
        if recipe.reprob:
            boxes = augment.draw_erasing(share.global_size, recipe.reprob, recipe.recount, size, generator)
            x = augment.erase(x, share.take(boxes), self._fill(x.shape[1], size, generator))
        return x.contiguous(memory_format=torch.channels_last)

    def _fill(self, channels: int, size: Size, generator: torch.Generator) -> Tensor | float:
        """The values for random erasing; drawn on the device, because they are too many to send there."""
        if self.recipe.remode == "const":
            return 0.0
        area = size if self.recipe.remode == "pixel" else (1, 1)
        seed = int(torch.randint(2**62, (), generator=generator))
        noise = torch.Generator(self.share.device).manual_seed(seed)
        shape = (self.share.global_size, self.recipe.recount, channels, *area)
        return torch.randn(shape, generator=noise, device=self.share.device)[self.share.part]


class MemoryEval(EvalSplit):
    """Batches of an `ImageSet` in its order."""

    def __init__(self, data: ImageSet, batch_size: int, config: Mapping[str, Any], device: torch.device) -> None:
        super().__init__(data)
        self._images, self._batch_size = data.images.to(device), batch_size
        self.mean, self.std = config["mean"], config["std"]

    def in_order(self) -> Iterator[Tensor]:
        """Every image once, as stored: (B, C, H, W)."""
        for images in self._images.split(self._batch_size):
            yield augment.normalize(images, self.mean, self.std)
