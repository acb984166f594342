"""The report of a fine-tuned net: what it does on the test split of its run.

Shapes: B images of a batch, N of all, K classes, C channels, H x W pixels.
"""

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from seattn._splits import find_split, leave_out_unreadable, list_files
from seattn.evaluate import match_classes, summarize
from seattn.load import DIR_PREFIX, load_model
from seattn.predict import eval_transform, image_mode, predict_logits, read_image
from seattn.report import write_report
from seattn.rows import AccuracyRow

_BATCH = 64  # images at a time
_SIDE = 128  # pixels at most of an image on the page


def write_run_report(run: Path, root: Path, row: AccuracyRow, device: str, *, skip_bad: bool) -> Path:
    """Write `run`/report.html, on the test split of `root`, from the weights as the run exported them."""
    model = load_model(f"{DIR_PREFIX}{run}", device=device)
    files = list_files(find_split(root, "test"))
    if skip_bad:
        files = leave_out_unreadable(files, "test", warn=False)
    outputs, names = match_classes(files.class_names, model)
    labels = np.array(outputs)[files.labels.numpy()]  # (N,)
    pictures: list[np.ndarray] = []
    logits = predict_logits(model, _batches(model, files.paths, pictures))  # (N, K)
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


def _batches(model: nn.Module, paths: Sequence[Path], pictures: list[np.ndarray]) -> Iterator[torch.Tensor]:
    """Batches (B, C, H, W) for the model; what each image looks like then, at most _SIDE high, goes into `pictures`."""
    mode, transform = image_mode(model), eval_transform(model)
    cfg: Any = model.pretrained_cfg
    mean, std = (torch.tensor(cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
    for start in range(0, len(paths), _BATCH):
        x = torch.stack([transform(read_image(path, mode)) for path in paths[start : start + _BATCH]])  # (B, C, H, W)
        seen = (x * std + mean).clamp(0, 1)
        if seen.shape[-1] > _SIDE:
            seen = nn.functional.interpolate(seen, size=(_SIDE, _SIDE), mode="bilinear", antialias=True)
        shown = (seen.expand(-1, 3, -1, -1) * 255).round().byte().permute(0, 2, 3, 1)  # (B, H, W, 3)
        pictures.extend(shown.numpy())
        yield x
