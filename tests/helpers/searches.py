"""A search file to write, and a training that costs nothing, for tests of what a study does."""

import csv
import json
from pathlib import Path

import yaml

RECIPE = {
    "model": "resnet20_cifar",
    "num_classes": 3,
    "lr": 0.05,
    "batch_size": 8,
    "epochs": 3,
    "warmup_epochs": 0,
    "smoothing": 0.0,
    "seattn": {"dataset": "colours", "holdout": 0.2},
}
SPACE = {"lr": {"float": [0.01, 1.0], "log": True}, "seattn.cutout": {"int": [0, 16], "step": 4}}


class Row:
    """What a test needs of seattn.core.rows.AccuracyRow."""

    def __init__(self, top1):
        self.top1 = top1


def write_search(folder, **changes):
    """`folder`/s.yaml with `changes` (None: without that key), and its base beside it."""
    (folder / "base.yaml").write_text(yaml.safe_dump({**RECIPE, **changes.pop("recipe", {})}))
    raw = {"base": "base.yaml", "space": SPACE, **changes}
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in raw.items() if value is not None}, sort_keys=False))
    return path


def fake_train(score, runs=None):
    """Takes the place of `train`: `score(recipe, epoch)` is the held-out top-1 in percent; `runs` gets what ran."""

    def train(recipe, data_dir, out, *, resume, device, skip_bad, read_test, on_epoch):
        assert not read_test
        out = Path(out)
        path = out / "summary.csv"
        rows = list(csv.DictReader(path.open())) if path.exists() else []
        mine = []
        if runs is not None:
            runs.append((out.name, mine))
        for epoch in range(len(rows), recipe.epochs):
            row = {"epoch": epoch, "eval_top1": score(recipe, epoch), "train_seconds": 1.0}
            rows.append(row)
            mine.append(epoch)
            with path.open("w") as file:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
                writer.writerows(rows)
            (out / "last.pth.tar").write_text("")
            on_epoch(row)
        top1 = float(rows[-1]["eval_top1"]) / 100
        (out / "model.safetensors").write_text("")
        (out / "result.json").write_text(json.dumps({"top1": top1, "top1_low": top1, "top1_high": top1, "n": 1000}))
        return Row(top1)

    return train
