"""The weights of a run in the form that ships: in half precision, scored in that form, recorded with their SHA-256."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from benchmarks.evidence.known_classes import check_known
from seattn.core.errors import UserError, first_line
from seattn.core.files import atomic_path, sha256, write_text
from seattn.core.recipe import Recipe
from seattn.core.rows import AccuracyRow, conditions
from seattn.data.folders.splits import has_split
from seattn.data.images import hold_out
from seattn.evaluation.probabilities.temperature import calibrate
from seattn.evaluation.scoring import evaluate, open_images
from seattn.hub.facts import ClassResults
from seattn.models._pretrained import WEIGHTS
from seattn.models.load import TEMPERATURE, load_model, set_temperature

_LARGEST_DIFFERENCE = 0.005  # of top-1: 50 of 10,000 images; rounding changes the class of a few


def write_half(source: Path, target: Path) -> None:
    """Write the tensors of `source` to `target`, and convert those of two and more dimensions to float16.

    Vectors (norms with their statistics, biases) keep their dtype: they are a thousandth of the file, and a variance
    below 6e-8 would be 0 in float16.

    Raises:
        UserError: if `source` is missing or damaged, or has a weight that is too large for float16.
    """
    try:
        with safe_open(str(source), "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  the file is not a mapping
            metadata = file.metadata()
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the weights {source}: {first_line(error)}") from error
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.ndim >= 2:
            tensors[key] = tensor.half()
            if not tensors[key].isfinite().all():
                raise UserError(
                    f"{source}: {key} has weights above {torch.finfo(torch.half).max:g}, the largest number of float16"
                )
    save_file(tensors, target, metadata=metadata)


def score(
    row: AccuracyRow, weights: Path, data_dir: Path, temperature: float | None = None
) -> tuple[AccuracyRow, ClassResults]:
    """`row` with the scores of `weights` on the test split of `data_dir`, and their results by class.

    Args:
        temperature: that of the weights, for the calibration error with it; all other scores are without it.

    Raises:
        UserError: if the split has other classes or another number of images than the run's, or the accuracy differs.
    """
    model = load_model(row.name, checkpoint=weights)
    check_known(data_dir, open_images(data_dir, "test").class_names, row.name)
    measured_in = conditions(torch.device("cpu"))
    scores = evaluate(model, data_dir)
    if scores.n != row.n:
        raise UserError(
            f"{data_dir} has {scores.n} test images, the run was scored on {row.n}; give the run's own data"
        )
    if abs(scores.top1 - row.top1) > _LARGEST_DIFFERENCE:
        raise UserError(
            f"the weights of {row.name} score {scores.top1:.2%} on {data_dir}, the run had {row.top1:.2%}; give the "
            "run's own data"
        )
    scored = replace(
        row,
        top1=scores.top1,
        top1_low=scores.top1_low,
        top1_high=scores.top1_high,
        top5=scores.top5,
        loss=scores.loss,
        ece=scores.ece,
        weights_dtype=_dtype(weights),
    )
    if temperature is not None:
        set_temperature(model, temperature)
    classes = ClassResults(
        name=row.name,
        seed=row.seed,
        recipe=row.recipe,
        sha256=sha256(weights),
        split=row.split,
        class_names=scores.class_names,
        confusion=scores.confusion,
        bins=scores.bins,
        conditions=measured_in,
        temperature=temperature,
        calibrated_ece=None if temperature is None else evaluate(model, data_dir).ece,
    )
    return scored, classes


def score_again(row: AccuracyRow, data_dir: Path, weights: Path = WEIGHTS) -> ClassResults:
    """The results by class of the packaged weights of `row` on the test split of `data_dir`.

    Raises:
        UserError: if their accuracy is not exactly that of `row`.
    """
    path = weights / f"{row.name}.safetensors"
    temperature = _index(weights).get(row.name, {}).get(TEMPERATURE)
    scored, classes = score(row, path, data_dir, temperature)
    if scored.top1 != row.top1:
        raise UserError(f"{path} scores {scored.top1:.2%} here, its row says {row.top1:.2%}; is it that run's file?")
    return classes


def _dtype(weights: Path) -> str:
    with safe_open(str(weights), "pt") as file:
        dtypes = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118  the file is not a mapping
    return "float16" if "F16" in dtypes else "float32"


def held_out_temperature(row: AccuracyRow, recipe: Recipe, weights: Path, data_dir: Path) -> float | None:
    """The temperature that suits `weights` on the images that their run held out; None if it held out none.

    Args:
        recipe: that of the run, which says which images these are.

    Raises:
        UserError: if the accuracy on the images is not the run's: they are others.
    """
    if row.held_out_top1 is None:
        return None
    if has_split(data_dir, "validation"):
        images = open_images(data_dir, "validation")
    elif recipe.seattn.holdout == 0:
        raise UserError(f"{data_dir} has no validation split, on which the run of {row.name} was judged; give its data")
    else:
        training: Any = open_images(data_dir, "train")  # files, or images in memory
        _, images = hold_out(training, recipe.seattn.holdout, recipe.seattn.holdout_seed)
    if len(images) != row.held_out_images:
        raise UserError(
            f"{data_dir} has {len(images)} held-out images, the run of {row.name} had {row.held_out_images}; give the "
            "run's own data"
        )
    fitted = calibrate(load_model(row.name, checkpoint=weights), images)
    if abs(fitted.before.top1 - row.held_out_top1) > _LARGEST_DIFFERENCE:
        raise UserError(
            f"the weights of {row.name} score {fitted.before.top1:.2%} on the held-out images of {data_dir}, the run "
            f"had {row.held_out_top1:.2%}; give the run's own data"
        )
    change = f"{fitted.before.ece:.2%} to {fitted.after.ece:.2%}"
    print(f"temperature {fitted.temperature:g}: calibration error on the held-out images from {change}")
    return fitted.temperature


def place(source: Path, name: str, temperature: float | None, weights: Path = WEIGHTS) -> None:
    """Copy `source` to `weights`/`name`.safetensors and record it, with the temperature, in `weights`/index.json."""
    target = weights / f"{name}.safetensors"
    if source != target:
        with atomic_path(target) as part:
            shutil.copyfile(source, part)
    index = _index(weights)
    fitted = {} if temperature is None else {TEMPERATURE: temperature}
    index[name] = {"file": target.name, "sha256": sha256(target), **fitted}
    write_text(weights / "index.json", json.dumps(dict(sorted(index.items())), indent=2) + "\n")


def _index(weights: Path) -> dict[str, dict[str, Any]]:
    index: dict[str, dict[str, Any]] = json.loads((weights / "index.json").read_text(encoding="utf-8"))
    return index
