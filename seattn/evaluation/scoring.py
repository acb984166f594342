"""How good a classifier is: accuracy with its interval, per-class scores, confusions, calibration.

Shapes: N images, K classes (outputs of the model). All scores and probabilities are fractions of 1, not per cent.
"""

import logging
import re
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

from seattn.core.errors import UserError
from seattn.data.folders import list_files, split_folder
from seattn.data.images import FileSet, ImageSet, cifar_folder, load_cifar
from seattn.data.loader import FolderEval
from seattn.data.transforms import class_names, data_config
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
    exif: bool = True,
    class_map: Path | None = None,
) -> Evaluation:
    """Evaluate on images `<class>/<image>` under `folder`, of any size, with timm's transform for the model.

    Args:
        workers: processes that decode images; 0 decodes in this one.
        device: where to compute; None is where the model is.
        exif: turn images by their EXIF orientation, which timm does not.
        class_map: a text file with the class folder of each output of the model, one a line; for folders that the model
            has no names for.

    Raises:
        UserError: naming the folder, class or file, if there are no images, classes do not fit or a file is unreadable.
    """
    return _evaluate(
        model,
        list_files(folder, exif=exif),
        batch_size=batch_size,
        workers=workers,
        device=next(model.parameters()).device if device is None else torch.device(device),
        channels_last=channels_last,
        bf16=bf16,
        class_map=class_map,
    )


def evaluate(
    model: nn.Module,
    data_dir: Path,
    split: str = "test",
    *,
    batch_size: int = 256,
    workers: int = 2,
    exif: bool = True,
    class_map: Path | None = None,
) -> Evaluation:
    """Evaluate, where the model is, on a split of `data_dir`: torchvision's CIFAR files, or as `split_folder` finds it.

    Args: as of `evaluate_folder`.

    Raises:
        UserError: as `evaluate_folder` and `split_folder`, and if CIFAR's files are damaged or have no such split.
    """
    if cifar_folder(data_dir) is None:
        images: FileSet | ImageSet = list_files(split_folder(data_dir, split), exif=exif)
    else:
        images = load_cifar(data_dir, split)
    device = next(model.parameters()).device
    return _evaluate(model, images, batch_size=batch_size, workers=workers, device=device, class_map=class_map)


def _evaluate(
    model: nn.Module,
    images: FileSet | ImageSet,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    channels_last: bool = False,
    bf16: bool = False,
    class_map: Path | None,
) -> Evaluation:
    outputs, names = match_classes(images.class_names, model, class_map)
    batches = FolderEval(images, batch_size, workers, data_config(model), device).in_order()
    logits = predict_logits(model, batches, device=device, channels_last=channels_last, bf16=bf16)  # (N, K)
    return summarize(logits, torch.tensor(outputs)[images.labels], names)


def match_classes(
    folders: Sequence[str], model: nn.Module, class_map: Path | None = None
) -> tuple[list[int], tuple[str, ...]]:
    """For each class folder the index of the model's output, and the names of all K outputs.

    By `class_map` if it is given; by name where every folder is one of the model's label names; else, where there are K
    folders, by their order with a warning. Numbers are sorted by value, as in timm.

    Raises:
        UserError: if none of these fits.
    """
    known = class_names(model)
    if class_map is not None:
        return _read_class_map(folders, known, class_map)
    if set(folders) <= set(known):
        return [known.index(name) for name in folders], known
    stray = next(name for name in folders if name not in known)
    if len(folders) != len(known):
        raise UserError(
            f"class folder {stray!r} is not one of the model's {len(known)} classes ({', '.join(known[:3])} …), and "
            f"{len(folders)} folders cannot be matched to {len(known)} classes by their order; give --class-map FILE, "
            "with the folder of each class on a line"
        )
    ordered = sorted(folders, key=_natural_key)
    _logger.warning(
        "class folder %r is not a class of the model: folders are matched to its classes by their order, %s to %s%s; "
        "if the model was trained with another order, give --class-map FILE, with the folder of each class on a line",
        stray,
        ordered[0],
        ordered[-1],
        "" if ordered == sorted(folders) else " by number (as text, 10 would come before 2)",
    )
    return [ordered.index(name) for name in folders], tuple(ordered)


def _natural_key(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _read_class_map(folders: Sequence[str], known: Sequence[str], class_map: Path) -> tuple[list[int], tuple[str, ...]]:
    if not class_map.is_file():
        raise UserError(f"no such file: {class_map}; --class-map takes a text file with a folder on each line")
    try:
        names = class_map.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the class map {class_map}: {error}") from error
    names = [name.strip() for name in names if name.strip()]
    if len(names) != len(known) or len(set(names)) < len(names):
        raise UserError(
            f"the class map {class_map} has {len(set(names))} different lines, and the model {len(known)} classes; "
            "give the name of a folder for each class, in the order of the model's outputs"
        )
    if strays := [name for name in folders if name not in names]:
        raise UserError(f"class folder {strays[0]!r} is not in the class map {class_map}")
    return [names.index(name) for name in folders], tuple(names)
