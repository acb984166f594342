"""From image files to class probabilities: read, transform as the model was trained, forward pass, top k.

Shapes: B images of a batch, N images in all, K classes, C channels, H x W pixels.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seattn.core.errors import UserError
from seattn.core.files import printable
from seattn.core.progress import progress_bar
from seattn.data.folders.files import list_images
from seattn.data.images import read_image
from seattn.data.transforms import class_names, data_config, eval_transform, image_mode
from seattn.evaluation.probabilities.combination import class_orders, combine
from seattn.evaluation.probabilities.views import mean_of_probabilities, views
from seattn.models.load import model_temperature

UNKNOWN = "unknown"
CSV_COLUMNS = ("image", "rank", "label", "index", "probability", "answer")

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """The k most probable classes of one image, the most probable first; probabilities are between 0 and 1.

    Args:
        unknown_below: the probability that the first class must have to be the answer.
    """

    image: str
    labels: tuple[str, ...]
    indices: tuple[int, ...]
    probabilities: tuple[float, ...]
    unknown_below: float = 0.0

    @property
    def is_unknown(self) -> bool:
        """Whether the probability of the first class is below `unknown_below`."""
        return self.probabilities[0] < self.unknown_below

    @property
    def answer(self) -> str:
        """The most probable class, or "unknown"."""
        return UNKNOWN if self.is_unknown else self.labels[0]

    def to_dict(self) -> dict[str, Any]:
        """The prediction as plain values for JSON."""
        classes = zip(self.labels, self.indices, self.probabilities, strict=True)
        return {
            "image": self.image,
            "answer": self.answer,
            "predictions": [
                {"label": label, "index": index, "probability": probability} for label, index, probability in classes
            ],
        }

    def to_rows(self) -> list[tuple[str | int, ...]]:
        """One row of a table with the columns CSV_COLUMNS for each class."""
        classes = zip(self.labels, self.indices, self.probabilities, strict=True)
        return [
            (self.image, rank, label, index, f"{probability:.6g}", self.answer)
            for rank, (label, index, probability) in enumerate(classes, 1)
        ]


@dataclass(frozen=True)
class Unreadable:
    """An image file without a prediction, and the reason in one line."""

    image: str
    reason: str


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """The image files that files, folders and glob patterns name, in the order of `sources`.

    A folder, also one that a pattern matches, stands for all images below it, as `list_images` finds them. A source
    that does not exist and matches nothing is returned as it is, so that reading it reports the error.

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
            matches = [Path(match) for match in sorted(glob.glob(str(source), recursive=True))]
            inside = [list_images(match) if match.is_dir() else [match] for match in matches]
            paths += list(dict.fromkeys(chain.from_iterable(inside))) or [source]
    return paths


def predict(
    model: nn.Module | Mapping[str, nn.Module],
    paths: Sequence[str | Path],
    topk: int = 5,
    *,
    batch_size: int = 64,
    exif: bool = True,
    tta: str = "none",
    ensemble: str = "average",
    unknown_below: float = 0.0,
) -> list[Prediction]:
    """Classify image files of any size; each prediction has min(topk, K) classes.

    The arguments are those of `predict_each`.

    Raises:
        UserError: if a file is missing or cannot be read as an image, or the model does not take 1, 3 or 4 channels.
    """
    predictions = []
    for prediction in predict_each(
        model,
        paths,
        topk,
        batch_size=batch_size,
        exif=exif,
        tta=tta,
        ensemble=ensemble,
        unknown_below=unknown_below,
    ):
        if isinstance(prediction, Unreadable):
            raise UserError(prediction.reason)
        predictions.append(prediction)
    return predictions


def predict_each(
    model: nn.Module | Mapping[str, nn.Module],
    paths: Sequence[str | Path],
    topk: int = 5,
    *,
    batch_size: int = 64,
    exif: bool = True,
    tta: str = "none",
    ensemble: str = "average",
    unknown_below: float = 0.0,
    progress: bool = False,
) -> Iterator[Prediction | Unreadable]:
    """Classify image files batch by batch, in order; a file that cannot be read gives an `Unreadable`.

    At most `batch_size` images are in memory at a time.

    Args:
        model: a net; or several nets of the same classes by their names, which answer together.
        exif: turn images by their EXIF orientation, which timm does not do.
        tta: average the probabilities over the views "flip" or "crops".
        ensemble: how several nets answer: "average" or "vote", as `combine` says.
        unknown_below: the answer is "unknown" if no class reaches this probability, from 0 to 1.
        progress: show a progress bar on stderr.

    Raises:
        UserError: if `topk` is below 1, `unknown_below` is no probability, the model does not take 1, 3 or 4 channels,
            or its outputs are not finite.
    """
    if topk < 1:
        raise UserError(f"topk must be at least 1, got {topk}")
    if not 0 <= unknown_below <= 1:
        raise UserError(f"--unknown-below must be a probability from 0 to 1, got {unknown_below:g}")
    models = {"": model} if isinstance(model, nn.Module) else dict(model)
    if not models:
        raise UserError("give one model or more")
    paths = [paths] if isinstance(paths, str | Path) else paths
    nets, orders = list(models.values()), class_orders(models)
    modes, transforms, names = (
        [image_mode(net) for net in nets],
        [eval_transform(net) for net in nets],
        class_names(nets[0]),
    )

    def read(path: str | Path) -> list[torch.Tensor] | Unreadable:
        """The image as each of the nets takes it, (C, H, W); the file is read once for each mode."""
        try:
            images = {mode: read_image(Path(path), mode, exif=exif) for mode in dict.fromkeys(modes)}
        except UserError as error:
            return Unreadable(printable(path), str(error))
        return [transform(images[mode]) for transform, mode in zip(transforms, modes, strict=True)]

    def classify(images: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """The probabilities (B, K) of B images as each of the nets takes them."""
        scores = []
        for place, net in enumerate(nets):
            x = torch.stack([image[place] for image in images])  # (B, C, H, W)
            scores.append(predict_scores(net, [x], tta=tta)[:, orders[place]])  # (B, K)
        return (scores[0] if len(nets) == 1 else combine(scores, ensemble)).softmax(1)

    with ThreadPoolExecutor() as pool:
        for group in _batches(progress_bar(paths, "predicting", shown=progress), batch_size):
            inputs = list(pool.map(read, group))  # B
            images = [x for x in inputs if not isinstance(x, Unreadable)]
            probabilities = iter(classify(images) if images else ())
            for path, x in zip(group, inputs, strict=True):
                if isinstance(x, Unreadable):
                    yield x
                else:
                    yield most_probable(printable(path), next(probabilities), names, topk, unknown_below)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def most_probable(
    image: str, probabilities: torch.Tensor, names: Sequence[str], topk: int, unknown_below: float = 0.0
) -> Prediction:
    """The prediction of one image from its probabilities (K,).

    Raises:
        UserError: if a probability is not finite.
    """
    if not probabilities.isfinite().all():
        raise UserError(f"the model's outputs for {image} are not finite: its weights are broken")
    top = probabilities.topk(min(topk, len(names)))
    indices = tuple(top.indices.tolist())
    return Prediction(image, tuple(names[i] for i in indices), indices, tuple(top.values.tolist()), unknown_below)


def predict_scores(model: nn.Module, batches: Iterable[torch.Tensor], *, tta: str = "none") -> torch.Tensor:
    """Scores (N, K) of batches (B, C, H, W): their softmax is the mean of the probabilities over the views of `tta`.

    Without `tta` the scores are the logits over the model's temperature.
    """
    temperature = model_temperature(model)
    scores = [torch.empty(0, len(class_names(model)))]
    for x in batches:
        logits = [predict_logits(model, [view(x)]) / temperature for view in views(tta)]  # (B, K) each
        scores.append(mean_of_probabilities(logits))
    return torch.cat(scores)


@torch.inference_mode()
def predict_logits(model: nn.Module, batches: Iterable[torch.Tensor], *, channels_last: bool = False) -> torch.Tensor:
    """Logits (N, K) of batches (B, C, H, W), float32 on the CPU; the model's train or eval mode is restored."""
    device, dtype = next((p.device, p.dtype) for p in model.parameters() if p.is_floating_point())
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    training = model.training
    model.eval()
    logits = [torch.empty(0, len(class_names(model)))]
    try:
        for batch in batches:
            x = batch.to(device, dtype, memory_format=memory_format)
            logits.append(model(x).float().cpu())  # (B, K)
    finally:
        model.train(training)
    if logits[-1].shape[1:] != logits[0].shape[1:]:
        raise UserError(
            f"the model has outputs of shape {tuple(logits[-1].shape)} for {len(logits[-1])} images, and "
            f"{logits[0].shape[1]} classes by its num_classes and pretrained_cfg, as timm's models have them"
        )
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
