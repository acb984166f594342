"""Folders of training runs that were never trained: their files, with nets of random weights."""

import csv
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from seattn.core.recipe import Recipe
from seattn.core.rows import AccuracyRow, Conditions

ARCH = "resnet20_cifar"
CONDITIONS = Conditions("a CPU", 1, "3.11", "2.11", "1.0", "", "0.1", "abc", "2026-01-02")


def write_images(root, counts, names, size=32):
    """`root`/<split>/<class>/<number>.png of noise; `counts` of each split the images a class."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for name in names:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(256, size=(size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def spread_net(classes, seed, arch=ARCH):
    """A net of random weights that does not say one class for all."""
    torch.manual_seed(seed)
    net = timm.create_model(arch, num_classes=classes)
    with torch.no_grad():
        for _ in range(3):  # batch norm that knows what comes, so that noise is told apart
            net.train()(torch.randn(64, 3, 32, 32))
        net.fc.weight.normal_(std=3.0)
        features = net.eval().forward_head(net.forward_features(torch.randn(64, 3, 32, 32)), pre_logits=True)
        net.fc.bias.copy_(-(net.fc.weight @ features.mean(0)))
    return net


def write_run(path, names, *, seed=0, weights=0, epochs=3, result=True, finished=True, recipe=None):
    """A run's folder.

    `weights` is the seed of its net; `result`: False omits the file, a dict replaces values; a recipe with holdout 0
    gives a run without held-out accuracies.
    """
    path = Path(path)
    path.mkdir(parents=True)
    recipe = replace(recipe or Recipe(model=ARCH, lr=0.1, epochs=epochs, warmup_epochs=0), seed=seed)
    recipe.write(path / "recipe.yaml")
    rows = [
        {
            "epoch": e,
            "train_loss": 2.0 / (e + 1),
            "eval_loss": 2.2 / (e + 1) if recipe.seattn.holdout else math.nan,
            "eval_top1": 30.0 + e if recipe.seattn.holdout else math.nan,
            "lr": 0.1 / (e + 1),
            "train_seconds": 60.0,
        }
        for e in range(epochs)
    ]
    with (path / "summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if not finished:
        return path
    net = spread_net(len(names), weights)
    save_for_hf(net, str(path), model_config={"label_names": list(names)}, safe_serialization=True)
    if result:
        row = AccuracyRow(
            *("x", "", "held-out", 9, 0.5, 0.4, 0.6, 0.9, 1.0, 0.1, seed, epochs, 27, 9, 0.5, 1000, 180.0),
            *("float32", "contiguous", CONDITIONS),
        )
        values = {**asdict(row), **(result if isinstance(result, dict) else {})}
        (path / "result.json").write_text(json.dumps(values))
    return path
