"""How good a classifier is: accuracy with its interval, per-class scores, confusions, calibration.

Shapes: N images of H x W pixels, K classes (outputs of the model). Scores and probabilities are fractions of 1.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest
from torch import nn

from seattn.core.errors import UserError
from seattn.core.progress import progress_bar
from seattn.data.folders.files import list_files
from seattn.data.folders.own_splits import check_unseen
from seattn.data.folders.splits import split_folder
from seattn.data.images import FileSet, ImageSet, cifar_folder, load_cifar
from seattn.data.labels import read_labels
from seattn.data.loader import FolderEval
from seattn.data.transforms import class_names, data_config
from seattn.evaluation.matching import match_classes
from seattn.evaluation.prediction import as_seen, predict_scores
from seattn.models._datasets import superclasses
from seattn.models.load import model_temperature

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]

_SIDE = 128  # the largest side in pixels of an image on a page


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class, between 0 and 1; `support` is its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int

    @property
    def recall_interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the recall."""
        return wilson_interval(round(self.recall * self.support), self.support)


class ClassCounts:
    """Scores that follow from the confusion matrix alone; a base class of records with these fields.

    Args:
        class_names: the K classes.
        confusion: (K, K) counts of images by [true][predicted].
        groups: the superclass of each class; None: by the names of the classes.
    """

    class_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    groups: tuple[str, ...] | None = None

    def worst_pairs(self, k: int = 10) -> list[tuple[str, str, int]]:
        """The k most frequent confusions: (true class, predicted class, count), most frequent first."""
        pairs = [
            (self.class_names[true], self.class_names[predicted], count)
            for true, row in enumerate(self.confusion)
            for predicted, count in enumerate(row)
            if true != predicted and count
        ]
        return sorted(pairs, key=lambda pair: -pair[2])[:k]

    @property
    def per_class(self) -> tuple[ClassScore, ...]:
        """The scores of the classes that have images, in order."""
        scores = []
        for i, name in enumerate(self.class_names):
            right, support = self.confusion[i][i], sum(self.confusion[i])
            predicted = sum(row[i] for row in self.confusion)
            if support:
                precision = right / predicted if predicted else 0.0
                scores.append(ClassScore(name, precision, right / support, 2 * right / (support + predicted), support))
        return tuple(scores)

    @property
    def superclass_top1(self) -> float | None:
        """The share of images whose predicted class is in the superclass of the true one. CIFAR-100 has 20.

        None for a data set without superclasses.
        """
        groups = self.groups or superclasses(self.class_names)
        if groups is None:
            return None
        correct = sum(
            count
            for group, row in zip(groups, self.confusion, strict=True)
            for predicted, count in zip(groups, row, strict=True)
            if group == predicted
        )
        return correct / sum(map(sum, self.confusion))


@dataclass(frozen=True)
class Evaluation(ClassCounts):
    """The scores of a model on N labelled images.

    Args:
        top1_low, top1_high: the 95 % Wilson interval of top1.
        top5: the share of images whose class is among the min(5, K) most probable ones.
        loss: the mean cross-entropy in nats.
        ece: the expected calibration error, the mean |accuracy - confidence| over 15 bins of confidence, weighted by
            count; Guo et al., ICML 2017.
        bins: count, mean confidence and accuracy of each of the 15 bins of `calibration_bins`.
        temperature: by which the model's logits were divided for `loss`, `ece` and `bins`.
    """

    n: int
    top1: float
    top1_low: float
    top1_high: float
    top5: float
    loss: float
    ece: float
    class_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    bins: tuple[tuple[int, float, float], ...]
    temperature: float = 1.0
    groups: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields and the scores of the classes as plain values, and the accuracy of superclasses if there are some.

        The values suit `json.dumps`.
        """
        values = {**asdict(self), "per_class": [asdict(score) for score in self.per_class]}
        del values["groups"]
        return values if self.superclass_top1 is None else {**values, "superclass_top1": self.superclass_top1}


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for the accuracy, from `correct` right answers on `n` images.

    Raises:
        ValueError: unless 0 <= correct <= n and n >= 1.
    """
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"correct must be between 0 and n, and n at least 1, got {correct} of {n}")
    interval = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def calibration_bins(
    probabilities: FloatArray, labels: IntArray, bins: int = 15
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Count, mean confidence and accuracy (bins,) in equal-width bins of confidence (low, high]; 0 in an empty bin.

    Args:
        probabilities: (N, K); the confidence is the largest value of a row.
        labels: (N,).
    """
    confidence = probabilities.max(1).astype(np.float64)  # (N,)
    correct = probabilities.argmax(1) == labels  # (N,)
    index = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)  # (N,)
    count = np.bincount(index, minlength=bins)
    divisor = np.maximum(count, 1)
    return (
        count,
        np.bincount(index, confidence, minlength=bins) / divisor,
        np.bincount(index, correct, minlength=bins) / divisor,
    )


def summarize(logits: torch.Tensor, labels: torch.Tensor | IntArray, class_names: Sequence[str]) -> Evaluation:
    """The scores of logits (N, K) against labels (N,), which are indices into the K class names.

    Raises:
        ValueError: if the shapes do not agree, N is 0, or a label is not between 0 and K - 1.
        UserError: if a logit is not finite.
    """
    logits, labels = logits.double().cpu(), torch.as_tensor(labels).long().cpu()
    n, k = len(labels), len(class_names)
    if logits.shape != (n, k) or n == 0:
        raise ValueError(f"logits must be (N, K) with N >= 1, got {tuple(logits.shape)} for {n} labels, {k} classes")
    if labels.min() < 0 or labels.max() >= k:
        raise ValueError(f"labels must be in 0..{k - 1}, got {int(labels.min())}..{int(labels.max())}")
    broken = int((~logits.isfinite()).any(1).sum())
    if broken:
        raise UserError(f"the model's outputs are not finite for {broken} of {n} images: its weights are broken")
    predicted = logits.argmax(1)  # (N,)
    correct = int((predicted == labels).sum())
    low, high = wilson_interval(correct, n)
    in_top5 = (logits.topk(min(5, k)).indices == labels[:, None]).any(1)  # (N,)
    count, confidence, accuracy = calibration_bins(logits.softmax(1).numpy(), labels.numpy())
    confusion = torch.bincount(k * labels + predicted, minlength=k * k).view(k, k)  # (K, K)
    return Evaluation(
        n=n,
        top1=correct / n,
        top1_low=low,
        top1_high=high,
        top5=float(in_top5.double().mean()),
        loss=float(nn.functional.cross_entropy(logits, labels)),
        ece=float((count * np.abs(accuracy - confidence)).sum() / n),
        class_names=tuple(class_names),
        confusion=tuple(map(tuple, confusion.tolist())),
        bins=tuple(zip(count.tolist(), confidence.tolist(), accuracy.tolist(), strict=True)),
    )


@dataclass(frozen=True, eq=False)
class Scores:
    """The evaluation of a model, and its answer to each of the N images.

    Args:
        labels: (N,) indices into the evaluation's class names.
        pictures: (N, H, W, 3) uint8, the images as the model sees them.
        probabilities: (N, K).
        params: the number of the model's parameters.
        temperature: by which the model's logits were divided for the probabilities.
    """

    evaluation: Evaluation
    labels: IntArray
    pictures: npt.NDArray[np.uint8]
    probabilities: FloatArray
    params: int
    temperature: float = 1.0

    @cached_property
    def predicted(self) -> IntArray:
        """The most probable class of each image, (N,)."""
        return np.asarray(self.probabilities.argmax(1))

    @cached_property
    def confidence(self) -> FloatArray:
        """The probability of the predicted class, (N,)."""
        return np.asarray(self.probabilities.max(1))

    @cached_property
    def uncalibrated_ece(self) -> float:
        """The expected calibration error of the model without its temperature."""
        smallest = np.finfo(np.float64).tiny
        logits = torch.from_numpy(np.log(np.maximum(self.probabilities, smallest))) * self.temperature
        return summarize(logits, self.labels, self.evaluation.class_names).ece

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the predicted class is the label, (N,)."""
        return np.asarray(self.predicted == self.labels)


def score_images(model: nn.Module, images: FileSet | ImageSet, *, progress: str = "") -> Scores:
    """Run `model` on labelled images, and keep its answers and small pictures of what it sees.

    Args:
        progress: the description of a progress bar; "" shows none.

    Raises:
        UserError: if the class folders are not the model's classes, or an image cannot be read.
    """
    outputs, names = match_classes(images.class_names, model)
    pictures: list[npt.NDArray[np.uint8]] = []

    def batches() -> Iterator[torch.Tensor]:
        for x in image_batches(model, images, batch_size=64, workers=0, progress=progress):
            pictures.extend(as_seen(model, x, side=_SIDE))
            yield x  # (B, C, H, W)

    logits = predict_scores(model, batches())  # (N, K)
    labels = np.array(outputs)[images.labels.numpy()]  # (N,)
    return Scores(
        evaluation=summarize(logits, labels, names),
        labels=labels,
        pictures=np.stack(pictures),
        probabilities=logits.double().softmax(1).numpy(),
        params=sum(parameter.numel() for parameter in model.parameters()),
        temperature=model_temperature(model),
    )


def evaluate(
    model: nn.Module,
    data_dir: str | Path,
    split: str = "test",
    *,
    batch_size: int = 256,
    workers: int = 2,
    exif: bool = True,
    class_map: Path | None = None,
    labels: Path | None = None,
    tta: str = "none",
    progress: bool = False,
) -> Evaluation:
    """Evaluate on images of any size, with timm's transform for the model.

    Args:
        data_dir: holds the folders of `split_folder`, or class folders, or torchvision's CIFAR files.
        workers: number of processes that read images; 0 reads them in this process.
        exif: turn images by their EXIF orientation, which timm does not do.
        class_map: a text file with the class folder of each output of the model, one on each line, for folders that
            are not the model's label names.
        labels: a table of the images below `data_dir` and their classes, instead of class folders
            (`seattn.data.labels.read_labels`).
        tta: average the probabilities over the views "flip" or "crops".
        progress: show a progress bar on stderr.

    Raises:
        UserError: if there are no images, the model's run was trained on some of them, a class does not fit the model,
            or a file cannot be read; the message names the folder, the run, the class or the file.
    """
    images = open_images(Path(data_dir), split, exif=exif, labels=labels)
    check_unseen(model, images, split)
    outputs, names = match_classes(images.class_names, model, class_map)
    description = "evaluating" if progress else ""
    batches = image_batches(model, images, batch_size=batch_size, workers=workers, progress=description)
    logits = predict_scores(model, batches, tta=tta)
    scores = summarize(logits, torch.tensor(outputs)[images.labels], names)
    # Folders that have other names than the model's classes have their superclasses, too.
    return replace(scores, temperature=model_temperature(model), groups=superclasses(class_names(model)))


def open_images(data_dir: Path, split: str, *, exif: bool = True, labels: Path | None = None) -> FileSet | ImageSet:
    """The labelled images of a split in folders, by a table, or in CIFAR files; the arguments are `evaluate`'s."""
    if labels is not None:
        return read_labels(labels, data_dir, split, exif=exif)
    if cifar_folder(data_dir) is None:
        return list_files(split_folder(data_dir, split), exif=exif)
    return load_cifar(data_dir, split)


def image_batches(
    model: nn.Module, images: FileSet | ImageSet, *, batch_size: int, workers: int, progress: str
) -> Iterable[torch.Tensor]:
    """All images in order, (B, C, H, W) as the model takes them."""
    batches = FolderEval(images, batch_size, workers, data_config(model), next(model.parameters()).device).in_order()
    count = -(-len(images) // batch_size)
    return progress_bar(batches, progress, total=count, unit="batch", shown=bool(progress))
