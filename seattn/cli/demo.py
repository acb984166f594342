"""A trained model on the 1,000 images that ship with the package: scores in the terminal, more in an HTML report."""

from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text
from torch import nn

from seattn.cli.tables import print_evaluation
from seattn.core.errors import UserError
from seattn.core.files import require_writable
from seattn.data.images import ImageSet
from seattn.data.samples import load_sample
from seattn.data.transforms import class_names
from seattn.evaluation.scoring import Evaluation, score_images
from seattn.models.load import load_model
from seattn.reports.net_report import write_report


def run_demo(model_name: str, out: Path, *, checkpoint: Path | None = None, console: Console) -> Evaluation:
    """Classify the CIFAR-10 sample, print the scores and write `out/report.html`.

    Raises:
        UserError: if the model cannot be loaded, does not know CIFAR-10's classes, or `out` cannot be written to.
    """
    require_writable(out, keep=False)
    sample = load_sample("cifar10")
    model = load_model(model_name, checkpoint=checkpoint)
    if not set(sample.class_names) <= set(class_names(model)):
        raise UserError(f"{model_name} does not know the classes of CIFAR-10; give a model trained on CIFAR-10")
    images = ImageSet(torch.from_numpy(sample.images), torch.from_numpy(sample.labels), sample.class_names)
    scores = score_images(model, images, progress="demo")
    facts = _facts(model, model_name, checkpoint)
    console.print(Text(facts["model"]))
    print_evaluation(console, scores.evaluation)
    write_report(
        out / "report.html",
        title=f"{model_name} on CIFAR-10",
        model=model,
        scores=scores,
        facts=facts,
    )
    return scores.evaluation


def _facts(model: nn.Module, name: str, checkpoint: Path | None) -> dict[str, str]:
    cfg = getattr(model, "pretrained_cfg", None) or {}
    weights = str(checkpoint) if checkpoint else Path(cfg.get("file") or "").name or cfg.get("hf_hub_id") or "none"
    count = sum(parameter.numel() for parameter in model.parameters())
    return {
        "model": f"{cfg.get('architecture') or name}, {count:,} parameters",
        "weights": weights,
        "images": "first 100 test images of each CIFAR-10 class, in the order of the listing that ships with them",
    }
