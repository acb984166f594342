"""Temperature scaling: one number by which logits are divided, so that probabilities agree with accuracies.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017, https://arxiv.org/abs/1706.04599. The predicted classes
do not change. Shapes: N images, K classes.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.optimize import brentq
from torch import nn

from seattn.core.errors import UserError
from seattn.core.files import write_text
from seattn.core.records import read_json
from seattn.data.images import FileSet, ImageSet
from seattn.evaluation.matching import match_classes
from seattn.evaluation.prediction import predict_logits
from seattn.evaluation.scoring import Evaluation, image_batches, summarize
from seattn.models.load import CONFIG, TEMPERATURE

_LOWEST, _HIGHEST = 0.01, 100.0  # a temperature outside would mean that the images do not determine one


@dataclass(frozen=True)
class Calibration:
    """The temperature that suits N labelled images, and the scores of a net on them without and with it."""

    temperature: float
    before: Evaluation
    after: Evaluation


def calibrate(
    model: nn.Module, images: FileSet | ImageSet, *, batch_size: int = 256, workers: int = 2, progress: bool = False
) -> Calibration:
    """Find the temperature of `model` on labelled images that took no part in its training.

    A temperature that the model has already is ignored.

    Raises:
        UserError: if the class folders are not the model's classes, an image cannot be read, or no temperature fits.
    """
    outputs, names = match_classes(images.class_names, model)
    description = "calibrating" if progress else ""
    batches = image_batches(model, images, batch_size=batch_size, workers=workers, progress=description)
    logits = predict_logits(model, batches)  # (N, K)
    labels = torch.tensor(outputs)[images.labels]  # (N,)
    before = summarize(logits, labels, names)
    temperature = round(fit_temperature(logits, labels), 4)
    return Calibration(temperature, before, summarize(logits / temperature, labels, names))


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature at which the cross-entropy of logits (N, K) against labels (N,) is smallest.

    The cross-entropy is convex in 1 / temperature. At its minimum, the mean of the logit that the softmax expects is
    the mean of the true class's logit.

    Raises:
        UserError: if the cross-entropy is smallest outside 0.01 to 100.
    """
    z = logits.double()
    true = z.gather(1, labels[:, None]).squeeze(1)  # (N,)

    def slope(temperature: float) -> float:
        """The derivative of the cross-entropy by 1 / temperature."""
        expected = ((z / temperature).softmax(1) * z).sum(1)  # (N,)
        return float((expected - true).mean())

    if slope(_LOWEST) <= 0:
        raise UserError(
            f"no temperature fits: the net has all of the {len(z):,} images right, or its wrong answers are far less "
            "certain than its right ones; calibrate on more images"
        )
    if slope(_HIGHEST) >= 0:
        raise UserError(f"no temperature fits: on the {len(z):,} images the net is no better than chance")
    return float(brentq(slope, _LOWEST, _HIGHEST, xtol=1e-6))


def store_temperature(folder: Path, temperature: float) -> None:
    """Write the temperature into config.json of a run or a model directory, from which `load_model` reads it."""
    path = folder / CONFIG
    write_text(path, json.dumps({**read_json(path), TEMPERATURE: temperature}, indent=2) + "\n")
