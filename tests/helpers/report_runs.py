"""Folders of training runs that were never trained: their files, with nets of random weights."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from seattn.core.recipe import Recipe
from seattn.training.run_dir import RunDir
from tests.helpers.runs import ROW

ARCH = "resnet20_cifar"


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


def fake_run(path, names, *, seed=0, weights=0, epochs=3, result=True, finished=True, recipe=None):
    """A run's folder with a log.

    `weights` is the seed of its net; `result`: False omits the file, a dict replaces values; a recipe with holdout 0
    gives a run without held-out accuracies.
    """
    recipe = replace(recipe or Recipe(model=ARCH, lr=0.1, epochs=epochs, warmup_epochs=0), seed=seed)
    run = RunDir(Path(path), recipe, resume=False)
    run.start(recipe)
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
    run.write_summary(rows)
    if finished:
        run.export(spread_net(len(names), weights), names)
    if finished and result:
        values = {"split": "held-out", "n": 9, "held_out_images": 9, "train_images": 27, "seed": seed, "epochs": epochs}
        run.write_result(replace(ROW, dataset="", **{**values, **(result if isinstance(result, dict) else {})}))
    run.close()
    return run.path
