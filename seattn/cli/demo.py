"""A trained model on the 1,000 images that ship with the package: scores in the terminal, more in an HTML report."""

import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from seattn.cli.tables import print_evaluation
from seattn.core.errors import UserError
from seattn.core.files import require_writable
from seattn.data.samples import Sample, load_sample
from seattn.data.transforms import class_names, eval_transform, image_mode
from seattn.evaluation.prediction import predict_logits
from seattn.evaluation.scoring import Evaluation, match_classes, summarize
from seattn.models.load import load_model
from seattn.reports.net_report import write_report

BATCH = 250


def run_demo(model_name: str, out: Path, *, checkpoint: Path | None = None, console: Console) -> Evaluation:
    """Classify the CIFAR-10 sample, print the scores and write `out/report.html`.

    Raises:
        UserError: if the model cannot be loaded, does not know CIFAR-10's classes, or `out` cannot be written to.
    """
    require_writable(out)
    sample = load_sample("cifar10")
    model = load_model(model_name, checkpoint=checkpoint)
    if not set(sample.class_names) <= set(class_names(model)):
        raise UserError(f"{model_name} does not know the classes of CIFAR-10; give a model trained on CIFAR-10")
    outputs, names = match_classes(sample.class_names, model)
    labels = np.array(outputs)[sample.labels]  # (N,)
    logits = predict_logits(model, _batches(model, sample))  # (N, K)
    evaluation = summarize(logits, labels, names)
    print_evaluation(console, evaluation)
    write_report(
        out / "report.html",
        title=f"{model_name} on CIFAR-10",
        model=model,
        evaluation=evaluation,
        images=sample.images,
        labels=labels,
        logits=logits,
        facts=_facts(model, model_name, checkpoint),
    )
    return evaluation


def _batches(model: nn.Module, sample: Sample) -> Iterator[torch.Tensor]:
    mode, transform = image_mode(model), eval_transform(model)
    for start in range(0, len(sample.images), BATCH):
        images = sample.images[start : start + BATCH]
        yield torch.stack([transform(Image.fromarray(image).convert(mode)) for image in images])  # (B, C, H, W)


def _facts(model: nn.Module, name: str, checkpoint: Path | None) -> dict[str, str]:
    cfg = getattr(model, "pretrained_cfg", None) or {}
    weights = str(checkpoint) if checkpoint else Path(cfg.get("file") or "").name or cfg.get("hf_hub_id") or "none"
    count = sum(parameter.numel() for parameter in model.parameters())
    return {
        "model": f"{cfg.get('architecture') or name}, {count:,} parameters",
        "weights": weights,
        "images": "first 100 test images of each CIFAR-10 class, in the order of the listing that ships with them",
        "versions": (
            f"seattn {version('seattn')}, timm {timm.__version__}, torch {torch.__version__}, "
            f"Python {platform.python_version()}"
        ),
    }
