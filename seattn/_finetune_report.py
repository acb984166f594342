"""The report of a fine-tuned net: what it does on the test split of its run.

Shapes: N images, K classes.
"""

import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import timm
import torch

from seattn._report_images import batches_as_seen
from seattn.core.rows import AccuracyRow
from seattn.data.folders import find_split, leave_out_unreadable, list_files
from seattn.evaluation.prediction import image_mode, predict_logits, read_image
from seattn.evaluation.scoring import match_classes, summarize
from seattn.models.load import DIR_PREFIX, load_model
from seattn.reports.net_report import write_report


def write_run_report(run: Path, root: Path, row: AccuracyRow, device: str, *, skip_bad: bool) -> Path:
    """Write `run`/report.html, on the test split of `root`, from the weights as the run exported them."""
    model = load_model(f"{DIR_PREFIX}{run}", device=device)
    files = list_files(find_split(root, "test"))
    if skip_bad:
        files = leave_out_unreadable(files, "test", warn=False)
    outputs, names = match_classes(files.class_names, model)
    labels = np.array(outputs)[files.labels.numpy()]  # (N,)
    pictures: list[np.ndarray] = []
    images = (read_image(path, image_mode(model)) for path in files.paths)
    logits = predict_logits(model, batches_as_seen(model, images, pictures))  # (N, K)
    path = run / "report.html"
    write_report(
        path,
        title=f"{row.name} on {row.dataset}",
        model=model,
        evaluation=summarize(logits, labels, names),
        images=np.stack(pictures),
        labels=labels,
        logits=logits,
        facts={
            "model": f"{row.name}, {row.params:,} parameters, {len(names)} classes",
            "weights": str(run / "model.safetensors"),
            "images": f"the test split in {root / 'test'}, as the net sees them; it took no part in the training",
            "training": (
                f"{row.epochs} epochs on {row.train_images:,} images, {row.held_out_images:,} held out to choose by, "
                f"seed {row.seed}; recipe in {run / 'recipe.yaml'}"
            ),
            "versions": (
                f"seattn {version('seattn')}, timm {timm.__version__}, torch {torch.__version__}, "
                f"Python {platform.python_version()}"
            ),
        },
    )
    return path
