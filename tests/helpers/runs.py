"""A finished run in a folder, as `seattn train` leaves one, without training."""

import dataclasses
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from seattn.core.recipe import Recipe, parse_recipe
from seattn.core.rows import AccuracyRow, Conditions
from seattn.training.build import create_model
from seattn.training.run_dir import RunDir

ROW = AccuracyRow(
    name="se_resnet20_cifar",
    dataset="birds",
    split="test",
    n=200,
    top1=0.5,
    top1_low=0.4313,
    top1_high=0.5687,
    top5=1.0,
    loss=1.25,
    ece=0.03,
    seed=4,
    epochs=7,
    train_images=900,
    held_out_images=100,
    held_out_top1=0.51,
    params=274_847,
    train_seconds=4000.0,
    dtype="bfloat16",
    memory_format="channels_last",
    conditions=Conditions("a processor", 2, "3.11.7", "2.15.0", "1.0.31", "", "0.1.0", "abc1234", "2026-01-02"),
)


def write_run(folder: Path, class_names: tuple[str, ...], recipe: dict[str, Any] | None = None, **row: Any) -> Path:
    """A run of untrained weights in `folder`, whose recipe has the keys `recipe` and whose row the values `row`."""
    made: Recipe = parse_recipe(
        {"model": "se_resnet20_cifar", "lr": 0.1, "num_classes": len(class_names), "seed": 4, **(recipe or {})}
    )
    torch.manual_seed(0)
    run = RunDir(folder, made, resume=False)
    run.start(made)
    run.export(create_model(dataclasses.replace(made, pretrained=False)), class_names)
    run.close()
    (folder / "result.json").write_text(json.dumps(asdict(dataclasses.replace(ROW, name=made.model, **row))))
    return folder
