"""How good a classifier is: accuracy with its interval, per-class scores, confusions, calibration.

Shapes: N images, K classes (outputs of the model). All scores and probabilities are fractions of 1, not per cent.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn
from torch.utils.data import DataLoader

from seattn.core.errors import UserError
from seattn.data.folders import SPLITS, split_folder
from seattn.data.images import cifar_folder, load_cifar
from seattn.data.loader import DecodedImages, ImageFiles, readable_batches
from seattn.data.transforms import class_names, eval_transform, image_mode
from seattn.evaluation.prediction import predict_logits

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]

_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class, between 0 and 1; `support` is its number of images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Evaluation:
    """What a model does on N labelled images.

    top1_low and top1_high are top1's 95 % Wilson interval; top5 counts the top min(5, K); loss is the mean
    cross-entropy in nats; ece the expected calibration error over 15 bins. per_class holds the classes that occur among
    the labels, confusion (K, K) counts images by [true][predicted], bins are the 15 of `calibration_bins`, each its
    count, mean confidence and accuracy.
    """

    n: int
    top1: float
    top1_low: float
    top1_high: float
    top5: float
    loss: float
    ece: float
    class_names: tuple[str, ...]
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    bins: tuple[tuple[int, float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """The same in plain values that `json.dumps` takes."""
        return asdict(self)

    def worst_pairs(self, k: int = 10) -> list[tuple[str, str, int]]:
        """The k most frequent confusions: (true class, predicted class, count), most frequent first."""
        return worst_pairs(self.confusion, self.class_names, k)


def worst_pairs(confusion: Sequence[Sequence[int]], names: Sequence[str], k: int) -> list[tuple[str, str, int]]:
    """Of counts (K, K) by [true][predicted] the k most frequent confusions, as `Evaluation.worst_pairs` gives them."""
    pairs = [
        (names[true], names[predicted], count)
        for true, row in enumerate(confusion)
        for predicted, count in enumerate(row)
        if true != predicted and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:k]


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for the true accuracy behind `correct` of `n`.

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
    """Count, mean confidence and accuracy (bins,) by equal-width bins of confidence (low, high]; zeros where empty.

    Args:
        probabilities: (N, K); confidence is the largest of a row.
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


def expected_calibration_error(probabilities: FloatArray, labels: IntArray, bins: int = 15) -> float:
    """Mean |accuracy - confidence| over bins of top-label confidence, weighted by count; Guo et al., ICML 2017.

    Args:
        probabilities: (N, K).
        labels: (N,).
    """
    count, confidence, accuracy = calibration_bins(probabilities, labels, bins)
    return float((count * np.abs(accuracy - confidence)).sum() / count.sum())


def summarize(logits: torch.Tensor, labels: torch.Tensor | IntArray, class_names: Sequence[str]) -> Evaluation:
    """All scores of logits (N, K) against labels (N,), indices into the K class names.

    Raises:
        ValueError: if the shapes do not agree, N is 0 or a label is not below K.
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
    present = np.unique(labels.numpy())
    scores = precision_recall_fscore_support(labels.numpy(), predicted.numpy(), labels=present, zero_division=0)
    matrix = confusion_matrix(labels.numpy(), predicted.numpy(), labels=range(k))
    probabilities = logits.softmax(1).numpy()  # (N, K)
    bins = (column.tolist() for column in calibration_bins(probabilities, labels.numpy()))
    return Evaluation(
        n=n,
        top1=correct / n,
        top1_low=low,
        top1_high=high,
        top5=float(in_top5.double().mean()),
        loss=float(nn.functional.cross_entropy(logits, labels)),
        ece=expected_calibration_error(probabilities, labels.numpy()),
        class_names=tuple(class_names),
        per_class=tuple(
            ClassScore(class_names[i], float(precision), float(recall), float(f1), int(support))
            for i, precision, recall, f1, support in zip(present, *scores, strict=True)
        ),
        confusion=tuple(tuple(row) for row in matrix.tolist()),
        bins=tuple(zip(*bins, strict=True)),
    )


def evaluate_folder(
    model: nn.Module,
    folder: Path,
    *,
    batch_size: int = 256,
    workers: int = 2,
    device: str | torch.device | None = None,
    channels_last: bool = False,
    bf16: bool = False,
) -> Evaluation:
    """Evaluate on images `<class>/<image>` under `folder`, of any size, with timm's transform for the model.

    Args:
        workers: processes that decode images; 0 decodes in this one.
        device: where to compute; None is where the model is.

    Raises:
        UserError: naming the folder, class or file, if there are no images, classes do not fit or a file is unreadable.
    """
    images = ImageFiles(folder, image_mode(model), eval_transform(model))
    return _evaluate(model, images, batch_size, workers, device, channels_last, bf16)


def evaluate(
    model: nn.Module, data_dir: Path, split: str = "test", *, batch_size: int = 256, workers: int = 2
) -> Evaluation:
    """Evaluate, where the model is, on a split of `data_dir`: torchvision's CIFAR files, or as `split_folder` finds it.

    Raises:
        UserError: as `evaluate_folder` and `split_folder`, and if CIFAR's files are damaged or have no such split.
    """
    cifar = cifar_folder(data_dir)
    if cifar is None:
        return evaluate_folder(model, split_folder(data_dir, split), batch_size=batch_size, workers=workers)
    if split not in SPLITS[:2]:
        raise UserError(f"{data_dir / cifar} has no split {split!r}; it has train and test")
    images = DecodedImages(load_cifar(data_dir, cifar, split, (32, 32)), image_mode(model), eval_transform(model))
    return _evaluate(model, images, batch_size, workers)


def _evaluate(
    model: nn.Module,
    images: ImageFiles | DecodedImages,
    batch_size: int,
    workers: int,
    device: str | torch.device | None = None,
    channels_last: bool = False,
    bf16: bool = False,
) -> Evaluation:
    outputs, names = match_classes(images.class_names, model)
    loader = DataLoader(images, batch_size, num_workers=workers)
    logits = predict_logits(
        model, readable_batches(loader, images), device=device, channels_last=channels_last, bf16=bf16
    )  # (N, K)
    return summarize(logits, np.array([outputs[label] for label in images.labels]), names)


def match_classes(folders: Sequence[str], model: nn.Module) -> tuple[list[int], tuple[str, ...]]:
    """For each class folder the index of the model's output, and the names of all K outputs.

    By name where every folder is one of the model's label names; else, where there are K, by sorted order with a
    warning.

    Raises:
        UserError: if neither fits.
    """
    known = class_names(model)
    if set(folders) <= set(known):
        return [known.index(name) for name in folders], known
    stray = next(name for name in folders if name not in known)
    if len(folders) != len(known):
        raise UserError(
            f"class folder {stray!r} is none of the model's {len(known)} classes ({', '.join(known[:3])} ...), and "
            f"{len(folders)} folders cannot be matched to {len(known)} classes by their order"
        )
    _logger.warning("class folder %r is no class of the model: folders are matched by their sorted order", stray)
    return list(range(len(known))), tuple(folders)
