"""A small study to train, and finished runs of it whose accuracies the test chooses."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from seattn.experiments.study.design import load_ablation
from seattn.experiments.study.runs import StudyRun, runs_of
from tests.helpers.colours import RECIPE
from tests.helpers.runs import ROW as ANY_ROW

CLASSES = {"blue": 2, "green": 1, "red": 0}
BASE = {**RECIPE, "seattn": {"dataset": "colours", "holdout": 0.5}}
WHERE = ANY_ROW.conditions
ROW = replace(
    ANY_ROW,
    name="resnet20_cifar",
    dataset="colours",
    split="held-out",
    n=1000,
    epochs=2,
    train_images=24,
    held_out_images=1000,
    params=272_019,
    train_seconds=60.0,
)


def write_study(folder: Path, name: str = "x", **changes: object) -> Path:
    """A study of two variants and two seeds beside its base; None takes a key away."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    raw = {"base": "base.yaml", "seeds": [0, 1], "variants": {"a": {}, "b": {"lr": 0.02}}, **changes}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in raw.items() if value is not None}, sort_keys=False))
    return path


def finish(run: StudyRun, top1: float, **changes: object) -> None:
    """The files of a finished run that a study reads."""
    run.folder.mkdir(parents=True, exist_ok=True)
    run.recipe.write(run.folder / "recipe.yaml")
    row = replace(ROW, name=run.recipe.model, seed=run.recipe.seed, top1=top1, **changes)
    (run.folder / "result.json").write_text(json.dumps(asdict(row)))


def finish_all(study: Path, out: Path, top1: Callable[[str, int], float | None]) -> list[StudyRun]:
    """Finish each run of the study for which `top1` of variant and seed gives a number; all runs."""
    runs = runs_of(load_ablation(study), out)
    for run in runs:
        value = top1(run.variant, run.recipe.seed)
        if value is not None:
            finish(run, value)
    return runs
