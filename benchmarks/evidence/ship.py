"""A run's weights as the package ships them: halved, scored as they are then, recorded with their SHA-256."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from seattn.core.errors import UserError, first_line
from seattn.core.files import atomic_path, sha256, write_text
from seattn.core.rows import AccuracyRow, conditions
from seattn.evaluation.scoring import evaluate
from seattn.hub.facts import ClassResults, class_results
from seattn.models._pretrained import WEIGHTS
from seattn.models.load import load_model

_FAR = 0.005  # of top-1: a difference by rounding is a few images, this is 50 of 10,000


def write_half(source: Path, target: Path) -> None:
    """Write the tensors of `source` to `target`, those of two and more dimensions in float16.

    Vectors (norms with their statistics, biases) stay as they are: they are a thousandth of the file, and a variance
    below 6e-8 is 0 in float16.

    Raises:
        UserError: if `source` is missing or damaged, or holds a weight that float16 has no number for.
    """
    try:
        with safe_open(str(source), "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no mapping
            metadata = file.metadata()
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the weights {source}: {first_line(error)}") from error
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.ndim >= 2:
            tensors[key] = tensor.half()
            if not tensors[key].isfinite().all():
                raise UserError(f"{source}: {key} has weights beyond float16's {torch.finfo(torch.half).max:g}")
    save_file(tensors, target, metadata=metadata)


def score(row: AccuracyRow, weights: Path, data_dir: Path) -> tuple[AccuracyRow, ClassResults]:
    """`row` with the scores that `weights` have on the test split of `data_dir`, as `seattn evaluate` gives them.

    And what they do to each class.

    Raises:
        UserError: if the split has another number of images than the run's, or the accuracy is another one.
    """
    model = load_model(row.name, checkpoint=weights)
    measured_in = conditions(torch.device("cpu"))
    found = evaluate(model, data_dir)
    if found.n != row.n:
        raise UserError(f"{data_dir} has {found.n} test images, the run was scored on {row.n}; give its data")
    if abs(found.top1 - row.top1) > _FAR:
        raise UserError(
            f"{weights} scores {found.top1:.2%} on {data_dir}, the run had {row.top1:.2%}; give the run's own data"
        )
    scored = replace(
        row,
        top1=found.top1,
        top1_low=found.top1_low,
        top1_high=found.top1_high,
        top5=found.top5,
        loss=found.loss,
        ece=found.ece,
        weights_dtype=_dtype(weights),
    )
    return scored, class_results(found, scored, sha256(weights), measured_in)


def score_again(row: AccuracyRow, data_dir: Path, weights: Path = WEIGHTS) -> ClassResults:
    """What the packaged weights of `row` do to each class of the test split of `data_dir`.

    Raises:
        UserError: if they do not score exactly what `row` says.
    """
    path = weights / f"{row.name}.safetensors"
    scored, classes = score(row, path, data_dir)
    if scored.top1 != row.top1:
        raise UserError(f"{path} scores {scored.top1:.2%} here, its row says {row.top1:.2%}; is it that run's?")
    return classes


def _dtype(weights: Path) -> str:
    with safe_open(str(weights), "pt") as file:
        dtypes = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118  it is no mapping
    return "float16" if "F16" in dtypes else "float32"


def place(source: Path, name: str, weights: Path = WEIGHTS) -> None:
    """Copy `source` to `weights`/`name`.safetensors and record it in `weights`/index.json."""
    target = weights / f"{name}.safetensors"
    with atomic_path(target) as part:
        shutil.copyfile(source, part)
    index = json.loads((weights / "index.json").read_text(encoding="utf-8"))
    index[name] = {"file": target.name, "sha256": sha256(target)}
    write_text(weights / "index.json", json.dumps(dict(sorted(index.items())), indent=2) + "\n")
