"""From image files to class probabilities: read, transform as the model was trained, forward pass, top k.

Shapes: B images of a batch, N images in all, K classes, C channels, H x W pixels.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seattn.core.errors import UserError
from seattn.core.files import printable
from seattn.core.progress import progress_bar
from seattn.data.folders import list_images
from seattn.data.images import read_image
from seattn.data.transforms import class_names, data_config, eval_transform, image_mode

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """The k most probable classes of one image, the most probable first; probabilities are between 0 and 1."""

    image: str
    labels: tuple[str, ...]
    indices: tuple[int, ...]
    probabilities: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """The prediction as plain values for JSON."""
        classes = zip(self.labels, self.indices, self.probabilities, strict=True)
        return {
            "image": self.image,
            "predictions": [
                {"label": label, "index": index, "probability": probability} for label, index, probability in classes
            ],
        }


@dataclass(frozen=True)
class Unreadable:
    """An image file without a prediction, and the reason in one line."""

    image: str
    reason: str


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """The image files that files, folders and glob patterns name, in the order of `sources`.

    A folder stands for all images below it, as `list_images` finds them. A source that does not exist and matches
    nothing is returned as it is, so that reading it reports the error.

    Raises:
        UserError: if a folder holds no image.
    """
    paths: list[Path] = []
    for source in map(Path, sources):
        if os.path.isdir(source):
            paths += list_images(source)
        elif os.path.exists(source):
            paths.append(source)
        else:
            paths += [Path(match) for match in sorted(glob.glob(str(source), recursive=True))] or [source]
    return paths


def predict(
    model: nn.Module, paths: Sequence[str | Path], topk: int = 5, *, batch_size: int = 64, exif: bool = True
) -> list[Prediction]:
    """Classify image files of any size; each prediction has min(topk, K) classes.

    Raises:
        UserError: if a file is missing or cannot be read as an image, or the model does not take 1, 3 or 4 channels.
    """
    predictions = []
    for prediction in predict_each(model, paths, topk, batch_size=batch_size, exif=exif):
        if isinstance(prediction, Unreadable):
            raise UserError(prediction.reason)
        predictions.append(prediction)
    return predictions


def predict_each(
    model: nn.Module,
    paths: Sequence[str | Path],
    topk: int = 5,
    *,
    batch_size: int = 64,
    exif: bool = True,
    progress: bool = False,
) -> Iterator[Prediction | Unreadable]:
    """Classify image files batch by batch, in order; a file that cannot be read gives an `Unreadable`.

    At most `batch_size` images are in memory at a time.

    Args:
        exif: turn images by their EXIF orientation, which timm does not do.
        progress: show a progress bar on stderr.

    Raises:
        UserError: if `topk` is below 1, the model does not take 1, 3 or 4 channels, or its outputs are not finite.
    """
    if topk < 1:
        raise UserError(f"topk must be at least 1, got {topk}")
    mode, transform, names = image_mode(model), eval_transform(model), class_names(model)

    def read(path: str | Path) -> torch.Tensor | Unreadable:
        try:
            return transform(read_image(Path(path), mode, exif=exif))  # (C, H, W)
        except UserError as error:
            return Unreadable(printable(path), str(error))

    with ThreadPoolExecutor() as pool:
        for group in _batches(progress_bar(paths, "predicting", shown=progress), batch_size):
            inputs = list(pool.map(read, group))  # B
            images = [x for x in inputs if not isinstance(x, Unreadable)]
            batches = [torch.stack(images)] if images else []  # (B, C, H, W)
            probabilities = iter(predict_logits(model, batches).softmax(1))  # (B, K)
            for path, x in zip(group, inputs, strict=True):
                if isinstance(x, Unreadable):
                    yield x
                else:
                    yield most_probable(printable(path), next(probabilities), names, topk)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def most_probable(image: str, probabilities: torch.Tensor, names: Sequence[str], topk: int) -> Prediction:
    """The prediction of one image from its probabilities (K,).

    Raises:
        UserError: if a probability is not finite.
    """
    if not probabilities.isfinite().all():
        raise UserError(f"the model's outputs for {image} are not finite: its weights are broken")
    top = probabilities.topk(min(topk, len(names)))
    indices = tuple(top.indices.tolist())
    return Prediction(image, tuple(names[i] for i in indices), indices, tuple(top.values.tolist()))


@torch.inference_mode()
def predict_logits(model: nn.Module, batches: Iterable[torch.Tensor], *, channels_last: bool = False) -> torch.Tensor:
    """Logits (N, K) of batches (B, C, H, W), float32 on the CPU; the model's train or eval mode is restored."""
    device = next(model.parameters()).device
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    training = model.training
    model.eval()
    logits = [torch.empty(0, len(class_names(model)))]
    try:
        for batch in batches:
            logits.append(model(batch.to(device, memory_format=memory_format)).float().cpu())  # (B, K)
    finally:
        model.train(training)
    return torch.cat(logits)


def as_seen(model: nn.Module, x: torch.Tensor, *, side: int | None = None) -> npt.NDArray[np.uint8]:
    """Inputs x (B, C, H, W) of the model as pictures (B, H, W, 3) without the normalisation.

    Args:
        side: the largest side in pixels; None does not resize.
    """
    config = data_config(model)
    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    pixels = (x.cpu() * std + mean).clamp(0, 1)[:, :3]
    if side is not None and pixels.shape[-1] > side:
        pixels = nn.functional.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
    return np.asarray((pixels.expand(-1, 3, -1, -1) * 255).round().byte().permute(0, 2, 3, 1))
