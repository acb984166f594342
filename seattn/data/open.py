"""Images for training: an image folder or torchvision's CIFAR files, by one of two paths.

"memory" keeps the decoded set on the device as uint8 and augments whole batches there (`memory.py`); "folder"
reads files as they are needed, with timm's transforms in worker processes (`loader.py`). Both draw from the same
laws. They differ in what a training crop is cut from: in memory every image has been resized to the model's input size.
Evaluation is the same on both: timm's transform for the model's cfg.
Shapes: N images of a set, B of a process' batch, 3 channels, H x W pixels.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from timm.data.config import resolve_data_config
from torch import Tensor

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe
from seattn.data.duplicates import warn_of_shared_files, warn_of_shared_images
from seattn.data.folders import (
    any_larger,
    check_classes,
    check_no_class_empty,
    find_split,
    has_split,
    leave_out_unreadable,
    list_files,
)
from seattn.data.images import AnySet, FileSet, Fit, ImageSet, Size, cifar_folder, decode, hold_out, load_cifar
from seattn.data.loader import FolderEval, FolderTrain
from seattn.data.memory import MemoryEval, MemoryTrain
from seattn.data.transforms import eval_transform_uint8

_MEMORY_LIMIT = 8 * 2**30  # bytes of decoded images in one set


class TrainSplit(Protocol):
    """What is trained on; `labels` (N,) int64 on the CPU."""

    labels: Tensor

    def __len__(self) -> int:
        """Images."""

    def batches(self) -> int:
        """What one process yields an epoch: the full batches of batch_size * world images."""

    def epoch(
        self, epoch: int, *, size: int | None = None, balanced: bool | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented, normalised batches (B, 3, H, W), float32, channels last, and targets (B,), on the device.

        All randomness comes from (recipe.seed, epoch); each process gets its slice of the global batch.

        Args:
            size: side to train at; None is the model's own.
            balanced: every class equally often; None is what the recipe says.
        """


class EvalSplit(Protocol):
    """What is evaluated on; `labels` (N,) int64 on the CPU."""

    labels: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Images."""

    def in_order(self) -> Iterator[Tensor]:
        """Every image once, (B, 3, H, W) on the device, through timm's evaluation transform."""


@dataclass(frozen=True)
class TrainingData:
    """The splits of a data folder; `path` is "memory" or "folder"."""

    class_names: tuple[str, ...]
    train: TrainSplit
    held_out: EvalSplit
    path: str
    read_test: Callable[[], EvalSplit] = field(repr=False)

    def test(self) -> EvalSplit:
        """Read the test split, and warn of images in it that also stand in train. Meant for the end of a run.

        Raises:
            UserError: if it is not there, or cannot be read.
        """
        return self.read_test()


def open_data(
    recipe: Recipe,
    data_dir: Path,
    cfg: Mapping[str, Any],
    device: torch.device,
    *,
    rank: int = 0,
    world: int = 1,
    skip_bad: bool = False,
) -> TrainingData:
    """Open the train split and what is held out: the validation split, or a part of train.

    A class folder of the validation or test split may be empty, but each must have the folders that train has.

    Args:
        cfg: the model's pretrained_cfg.
        rank, world: which of how many processes this is.
        skip_bad: read every image once now, and leave out and count those that cannot be read.

    Raises:
        UserError: naming what is missing, empty, unreadable, too large for memory, or not to be had by this path.
    """
    if cfg["input_size"][0] != 3:
        raise UserError(f"training reads images of 3 channels, the model takes {cfg['input_size'][0]}")
    opened = _Opener(recipe, data_dir, cfg, device, rank, world, skip_bad)
    return opened.cifar() if cifar_folder(data_dir) else opened.folder()


@dataclass(frozen=True)
class _Opener:
    recipe: Recipe
    data_dir: Path
    cfg: Mapping[str, Any]
    device: torch.device
    rank: int
    world: int
    skip_bad: bool

    @property
    def size(self) -> Size:
        return self.cfg["input_size"][1], self.cfg["input_size"][2]

    def cifar(self) -> TrainingData:
        _refuse_aa(self.recipe)
        if self.recipe.seattn.data == "folder":
            raise UserError(
                f"seattn.data 'folder' reads image folders, {self.data_dir} holds CIFAR files; use 'memory'"
            )
        whole = load_split(self.data_dir, "train", self.size)
        kept, held = self._hold_out(whole)

        def test() -> EvalSplit:
            images = load_split(self.data_dir, "test", self.size)
            if self.rank == 0:
                warn_of_shared_images(images.images, load_split(self.data_dir, "train", self.size).images)
            return self._memory_eval(self._as_timm_evaluates(images))

        held_out = self._memory_eval(self._as_timm_evaluates(held))
        return TrainingData(whole.class_names, self._memory_train(kept), held_out, "memory", test)

    def folder(self) -> TrainingData:
        whole = self._files("train")
        path = self._path(whole)
        if has_split(self.data_dir, "validation"):
            kept, held = whole, self._files("validation")
        else:
            kept, held = self._hold_out(whole)
        if has_split(self.data_dir, "test"):  # now, not after hours of training
            check_classes(find_split(self.data_dir, "train"), find_split(self.data_dir, "test"))

        def test() -> EvalSplit:
            files = self._files("test")
            if self.rank == 0:
                warn_of_shared_files(files.paths, whole.paths)
            return evaluated(files)

        def evaluated(files: FileSet) -> EvalSplit:
            if path == "memory" and not self._excess(files):
                return self._memory_eval(decode(files, self.size, _fit(self.cfg)))
            return FolderEval(files, self.recipe.batch_size, self.recipe.workers, self.cfg, self.device)

        train: TrainSplit
        if path == "memory":
            train = self._memory_train(decode(kept, self.size))
        else:
            train = FolderTrain(kept, self.recipe, self.cfg, self.device, rank=self.rank, world=self.world)
        return TrainingData(whole.class_names, train, evaluated(held), path, test)

    def _files(self, split: str) -> FileSet:
        folder, train = find_split(self.data_dir, split), find_split(self.data_dir, "train")
        check_classes(train, folder)
        files = list_files(folder)
        if self.skip_bad:
            files = leave_out_unreadable(files, split, warn=self.rank == 0)
        if folder == train:
            check_no_class_empty(files, folder)
        return files

    def _path(self, files: FileSet) -> str:
        wanted = self.recipe.seattn.data
        if self.recipe.aa and self.recipe.seattn.policy:
            raise UserError("aa and seattn.policy are two policies; give one of them")
        if wanted == "folder":
            return wanted
        if self.recipe.seattn.flips == "alternate":
            wanted = "memory"
        excess = self._excess(files)
        if wanted == "memory":
            _refuse_aa(self.recipe)
            if excess:
                raise UserError(excess)
            return wanted
        if excess or self.recipe.aa:
            return "folder"
        # A crop out of a photograph shows more when it is cut before the photograph is made small.
        shrunk = self.recipe.seattn.crop_padding is None and any_larger(files, self.size)
        return "folder" if shrunk else "memory"

    def _excess(self, files: FileSet) -> str:
        return _excess(files, self.size, str(self.data_dir), _memory_limit(self.device))

    def _hold_out(self, whole: AnySet) -> tuple[AnySet, AnySet]:
        return hold_out(whole, self.recipe.seattn.holdout, self.recipe.seattn.holdout_seed)

    def _memory_train(self, data: ImageSet) -> TrainSplit:
        return MemoryTrain(data, self.recipe, self.cfg, self.device, rank=self.rank, world=self.world)

    def _memory_eval(self, data: ImageSet) -> EvalSplit:
        return MemoryEval(data, self.recipe.batch_size, self.cfg, self.device)

    def _as_timm_evaluates(self, data: ImageSet) -> ImageSet:
        if resolve_data_config(pretrained_cfg=dict(self.cfg))["crop_pct"] == 1:  # the images have the input's size
            return data
        fit = _fit(self.cfg)
        images = [torch.from_numpy(np.array(fit(Image.fromarray(image)))) for image in data.images.numpy()]
        return ImageSet(torch.stack(images), data.labels, data.class_names)


def _fit(cfg: Mapping[str, Any]) -> Fit:
    """timm's evaluation transform without the normalisation: a PIL image to (H, W, 3) uint8."""
    transform = eval_transform_uint8(cfg)
    return lambda image: transform(image).permute(1, 2, 0).numpy()


def _refuse_aa(recipe: Recipe) -> None:
    if recipe.aa:
        raise UserError(f"aa {recipe.aa!r} needs seattn.data 'folder'; in memory the key for a policy is seattn.policy")


def _memory_limit(device: torch.device) -> int:
    """Bytes that a decoded set may take; on a GPU no more than half of what is free there."""
    return min(_MEMORY_LIMIT, torch.cuda.mem_get_info(device)[0] // 2) if device.type == "cuda" else _MEMORY_LIMIT


def _excess(files: FileSet, size: Size, where: str, limit: int) -> str:
    """Why the decoded files do not fit; empty if they do."""
    needed = len(files) * size[0] * size[1] * 3
    if needed <= limit:
        return ""
    return (
        f"{len(files)} images of {size[0]} x {size[1]} in {where} need {needed / 2**30:.1f} GiB, more than the "
        f"{limit / 2**30:.1f} GiB that are kept in memory; read them as files with seattn.data: folder"
    )


def load_split(data_dir: Path, split: str, size: Size) -> ImageSet:
    """Decode one split; images of another size than `size` (H, W) are squashed to it, bicubic.

    Raises:
        UserError: naming what is missing, empty, unreadable or too large for memory.
    """
    cifar = cifar_folder(data_dir)
    if cifar is not None:
        return load_cifar(data_dir, cifar, split, size)
    return load_folder(find_split(data_dir, split), size)


def load_folder(folder: Path, size: Size) -> ImageSet:
    """Decode `folder`/<class>/<image>, classes in sorted order.

    Raises:
        UserError: if there is no class folder or no image, an image is unreadable, or all are too large for memory.
    """
    files = list_files(folder)
    if excess := _excess(files, size, str(folder), _MEMORY_LIMIT):
        raise UserError(excess)
    return decode(files, size)
