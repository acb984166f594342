"""Images for training: an image folder or torchvision's CIFAR files, by one of two paths.

"memory" keeps the decoded set on the device as uint8 and augments whole batches there (`memory.py`); "folder" reads
files as they are needed, with timm's transforms in worker processes (`loader.py`). Both draw from the same
distributions. They differ in the source of a training crop: in memory every image has been resized to the model's input
size. Evaluation is the same on both: timm's transform for the model's config.
Shapes: N images of a set, B of a process' batch, C channels, H x W pixels.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from seattn.core.errors import UserError
from seattn.core.files import printable
from seattn.core.recipe import Recipe
from seattn.data.folders.files import check_classes, check_no_class_empty, list_files
from seattn.data.folders.splits import find_split, has_split
from seattn.data.images import (
    SKIP_BAD,
    AnySet,
    FileSet,
    Fit,
    ImageSet,
    Size,
    cifar_folder,
    decode,
    hold_out,
    leave_out_unreadable,
    load_cifar,
    open_image,
)
from seattn.data.loader import FolderEval, FolderTrain
from seattn.data.memory import EvalSplit, MemoryEval, MemoryTrain, TrainSplit
from seattn.data.sampling import long_tail
from seattn.data.transforms import channels_mode, check_policy, eval_transform_uint8

_HEAD = 2**16  # bytes of a file that are compared first, to find an image that is in two splits
_MEMORY_LIMIT = 8 * 2**30  # bytes of decoded images in one set
_HEADERS_READ = 64  # images whose headers are read, to see whether a set is of large ones
_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class TrainingData:
    """The splits of a data folder; `path` is the data path: "memory" or "folder"."""

    class_names: tuple[str, ...]
    train: TrainSplit
    held_out: EvalSplit
    path: str
    read_test: Callable[[], EvalSplit] = field(repr=False)

    def test(self) -> EvalSplit:
        """Read the test split, and warn of images in it that are also in train. Meant for the end of a run.

        Raises:
            UserError: if it is not there, or cannot be read.
        """
        return self.read_test()


def open_data(
    recipe: Recipe,
    data_dir: Path,
    config: Mapping[str, Any],
    device: torch.device,
    *,
    rank: int = 0,
    world: int = 1,
    skip_bad: bool = False,
    labelled: bool = True,
) -> TrainingData:
    """Open the train split and the held-out images: the validation split, or a part of train.

    A class folder of the validation or test split may be empty, but each must have the folders that train has.

    Args:
        recipe: its `seattn` keys say what is held out, and which images are drawn how often.
        data_dir: a folder (`train/<class>/<image>`, validation/… optional) or torchvision's CIFAR files.
        config: `data_config` of the model.
        device: where the batches are put.
        rank, world: the number of this process, from 0, and the number of processes.
        skip_bad: read every image once now, and leave out and count those that cannot be read.
        labelled: False opens the train split only, whose class folders need not be those of the other splits.

    Raises:
        UserError: naming the folder, image or recipe key that is missing, empty, unreadable, too large for memory, or
            not supported on this path.
    """
    channels = config["input_size"][0]
    policy = {"aa": recipe.aa, "seattn.policy": recipe.seattn.policy}
    if all(policy.values()):
        raise UserError("aa and seattn.policy are two policies; give one of them")
    if recipe.aa:
        check_policy(recipe.aa)
    for key, value in policy.items():
        if value and channels != 3:
            raise UserError(f"{key} {value!r} is for images of 3 channels, the model takes {channels}; remove the key")
    opener = _Opener(recipe, data_dir, config, device, rank, world, skip_bad, labelled)
    return opener.cifar() if cifar_folder(data_dir) else opener.folder()


@dataclass(frozen=True)
class _Opener:
    """Opens the splits of `data_dir`, by the path that suits them; the fields are the arguments of `open_data`."""

    recipe: Recipe
    data_dir: Path
    config: Mapping[str, Any]
    device: torch.device
    rank: int
    world: int
    skip_bad: bool
    labelled: bool

    @property
    def size(self) -> Size:
        return self.config["input_size"][1], self.config["input_size"][2]

    @property
    def mode(self) -> str:
        return channels_mode(self.config["input_size"][0])

    def cifar(self) -> TrainingData:
        _refuse_aa(self.recipe)
        if self.recipe.seattn.data == "folder":
            raise UserError(
                f"seattn.data 'folder' reads image folders, {self.data_dir} holds CIFAR files; use 'memory'"
            )
        whole = self._load("train")
        training, held_out = self._hold_out(whole)

        def test() -> EvalSplit:
            images = self._load("test")
            if self.rank == 0:
                warn_of_shared_images(images.images, self._load("train").images)
            return self._memory_eval(self._cropped(images))

        evaluation = self._memory_eval(self._cropped(held_out))
        return TrainingData(whole.class_names, self._memory_train(training), evaluation, "memory", test)

    def folder(self) -> TrainingData:
        whole = self._files("train")
        path = self._path(whole)
        if self.labelled and has_split(self.data_dir, "validation"):
            training, held_out = self._thinned(whole), self._files("validation")
        else:
            training, held_out = self._hold_out(whole)
        if self.labelled and has_split(self.data_dir, "test"):  # before hours of training
            check_classes(find_split(self.data_dir, "train"), find_split(self.data_dir, "test"))

        def test() -> EvalSplit:
            files = self._files("test")
            if self.rank == 0:
                warn_of_shared_files(files.paths, whole.paths)
            return evaluation(files)

        def evaluation(files: FileSet) -> EvalSplit:
            if path == "memory" and not self._excess(files):
                return self._memory_eval(decode(files, self.size, _fit(self.config), mode=self.mode))
            batch_size, workers = self.recipe.batch_size, self.recipe.workers
            return FolderEval(files, batch_size, workers, self.config, self.device, remedy=SKIP_BAD)

        train: TrainSplit
        if path == "memory":
            train = self._memory_train(decode(training, self.size, mode=self.mode))
        else:
            train = FolderTrain(training, self.recipe, self.config, self.device, rank=self.rank, world=self.world)
        return TrainingData(whole.class_names, train, evaluation(held_out), path, test)

    def _load(self, split: str) -> ImageSet:
        return load_cifar(self.data_dir, split, self.size, mode=self.mode)

    def _files(self, split: str) -> FileSet:
        folder, train = find_split(self.data_dir, split), find_split(self.data_dir, "train")
        check_classes(train, folder)
        files = list_files(folder, exif=self.recipe.seattn.exif)
        if self.skip_bad:
            files = leave_out_unreadable(files, split, warn=self.rank == 0)
        if folder == train:
            check_no_class_empty(files, folder)
        return files

    def _path(self, files: FileSet) -> str:
        choice = self.recipe.seattn.data
        if choice == "folder":
            return choice
        if self.recipe.seattn.flips == "alternate":
            choice = "memory"
        excess = self._excess(files)
        if choice == "memory":
            _refuse_aa(self.recipe)
            if excess:
                raise UserError(excess)
            return choice
        if excess or self.recipe.aa:
            return "folder"
        # A crop of a photograph keeps more detail if it is taken before the photograph is resized.
        shrunk = self.recipe.seattn.crop_padding is None and _any_larger(files, self.size)
        return "folder" if shrunk else "memory"

    def _excess(self, files: FileSet) -> str:
        """Why the decoded files do not fit into memory; empty if they do."""
        limit = _MEMORY_LIMIT
        if self.device.type == "cuda":  # no more than half of the free memory
            limit = min(limit, torch.cuda.mem_get_info(self.device)[0] // 2)
        channels, height, width = self.config["input_size"]
        needed = len(files) * height * width * channels
        if needed <= limit:
            return ""
        return (
            f"{len(files)} images of {height} x {width} in {printable(self.data_dir)} need {needed / 2**30:.1f} GiB, "
            f"more than the {limit / 2**30:.1f} GiB kept in memory; read them as files with seattn.data: folder"
        )

    def _hold_out(self, whole: AnySet) -> tuple[AnySet, AnySet]:
        training, held_out = hold_out(whole, self.recipe.seattn.holdout, self.recipe.seattn.holdout_seed)
        return self._thinned(training), held_out

    def _thinned(self, training: AnySet) -> AnySet:
        keys = self.recipe.seattn
        if keys.long_tail == 1:
            return training
        return training.subset(long_tail(training.labels, keys.long_tail, keys.holdout_seed))

    def _memory_train(self, data: ImageSet) -> TrainSplit:
        return MemoryTrain(data, self.recipe, self.config, self.device, rank=self.rank, world=self.world)

    def _memory_eval(self, data: ImageSet) -> EvalSplit:
        return MemoryEval(data, self.recipe.batch_size, self.config, self.device)

    def _cropped(self, data: ImageSet) -> ImageSet:
        """`data` after timm's evaluation transform; the images have the input's size already."""
        if self.config["crop_pct"] == 1 or not len(data):
            return data
        transform = eval_transform_uint8(self.config)
        images = [transform(data.read(i, self.mode)).permute(1, 2, 0) for i in range(len(data))]
        return ImageSet(torch.stack(images), data.labels, data.class_names)


def _fit(config: Mapping[str, Any]) -> Fit:
    """timm's evaluation transform without the normalisation: a PIL image to (H, W, C) uint8."""
    transform = eval_transform_uint8(config)
    return lambda image: transform(image).permute(1, 2, 0).numpy()


def _any_larger(files: FileSet, size: Size) -> bool:
    """Whether one of some images, spread over the set, has more rows or columns than `size`; by their headers."""
    for path in files.paths[:: max(1, len(files) // _HEADERS_READ)]:
        try:
            with open_image(path) as image:
                if image.width > size[1] or image.height > size[0]:
                    return True
        except Exception:  # of any type
            continue  # the error is raised when the image is read
    return False


def _refuse_aa(recipe: Recipe) -> None:
    if recipe.aa:
        raise UserError(f"aa {recipe.aa!r} needs seattn.data 'folder'; in memory the key for a policy is seattn.policy")


def warn_of_shared_files(test: Sequence[Path], train: Sequence[Path]) -> None:
    """Warn, in one line, of test files whose bytes (SHA-256) are those of a training file."""
    train_heads = _by_digest(_head, train)
    candidates = [path for path in test if _head(path) in train_heads]
    if candidates:  # few: all their bytes are compared with those of every training file with the same first bytes
        heads = {_head(path) for path in candidates}
        contents = _by_digest(_content, [path for path in train if _head(path) in heads])
        pairs = [(path, contents.get(_content(path))) for path in candidates]
        _warn_of_pairs([(printable(path), printable(twin)) for path, twin in pairs if twin is not None], len(test))


def warn_of_shared_images(test: torch.Tensor, train: torch.Tensor) -> None:
    """Warn, in one line, of test images (N, H, W, 3) whose pixels (SHA-256) are those of a training image."""
    known = {hashlib.sha256(image.tobytes()).digest(): i for i, image in enumerate(train.numpy())}
    pairs = [(i, known.get(hashlib.sha256(image.tobytes()).digest())) for i, image in enumerate(test.numpy())]
    _warn_of_pairs([(f"image {i}", f"image {j}") for i, j in pairs if j is not None], len(test))


def _warn_of_pairs(pairs: Sequence[tuple[str, str]], count: int) -> None:
    if pairs:
        _logger.warning(
            "%d of %d test images are also in train, by content: the score is too high; the first is %s, in train %s",
            len(pairs),
            count,
            pairs[0][0],
            pairs[0][1],
        )


def _by_digest(digest: Callable[[Path], bytes], paths: Sequence[Path]) -> dict[bytes, Path]:
    """Digest -> the first path that has it."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(reversed(list(pool.map(digest, paths))), reversed(paths), strict=True))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return path.stat().st_size.to_bytes(8, "big") + hashlib.sha256(file.read(_HEAD)).digest()


def _content(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
