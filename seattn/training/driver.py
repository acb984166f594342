"""Train a recipe on a data folder: weights, their config and one row with the accuracy on the test split."""

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from seattn.core.device import torch_device
from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.rows import AccuracyRow
from seattn.data.folders.linking import link_splits
from seattn.data.folders.own_splits import DATA
from seattn.data.folders.splits import check_out, has_split, require_split
from seattn.data.labels import read_labelled
from seattn.models.listing import check_name
from seattn.training.log import check_log
from seattn.training.loop import TrainingRun
from seattn.training.processes import Distributed
from seattn.training.run_dir import Row, RunDir


def train(
    recipe: Recipe | Path,
    data_dir: Path,
    out_dir: Path | None = None,
    *,
    resume: bool = False,
    device: str | None = None,
    skip_bad: bool = False,
    overrides: Mapping[str, object] | None = None,
    read_test: bool = True,
    labels: Path | None = None,
    test_labels: Path | None = None,
    on_epoch: Callable[[Row], None] | None = None,
) -> AccuracyRow | None:
    """Train the recipe's model on `data_dir`, and read the test split once, at the end.

    Under `torchrun` each process takes its part of every batch; the first process writes. The global random generators
    of Python, NumPy and torch are as before when the function returns.

    Args:
        recipe: a file of `zoo_configs/`, or the result of `load_recipe`.
        data_dir: a folder (`train/<class>/<image>`, test/…, validation/… optional) or torchvision's CIFAR files.
        out_dir: the folder for the run's files; `runs/<model>-s<seed>` by default.
        resume: continue the run in `out_dir` after its last finished epoch; a finished run only with more epochs.
        device: "cuda", "cpu", …; by default CUDA where there is one.
        skip_bad: leave unreadable images out, with a warning that counts them.
        overrides: recipe keys to replace, where `recipe` is a file.
        read_test: False does not read the test split, which may then be absent; the row is of the held-out images.
        labels: a table of the training images below `data_dir` and their classes, as `seattn.data.labels` reads it. The
            images are linked into `out_dir`/data, where a tenth of each class is for the test without `test_labels`.
        test_labels: such a table of the test images.
        on_epoch: called after each epoch with its row of `summary.csv`, in the first process; an exception from it ends
            the run, which `resume` continues.

    Returns:
        The row of the test split, or of the held-out images; None in all processes but the first.

    Raises:
        UserError: for a bad recipe, bad data, or an `out_dir` that cannot be used; nothing is half-written.
        ValueError: if `overrides` are given with the result of `load_recipe`, which takes them itself.
    """
    if isinstance(recipe, Path):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        raise ValueError(f"overrides replace the keys of a recipe's file; give them to load_recipe, got {overrides!r}")
    processes = Distributed()
    target = torch_device(processes.device(device))
    check_recipe(recipe, target)
    path = out_dir or Path("runs") / f"{recipe.model}-s{recipe.seed}"
    if not resume:
        check_out(path, data_dir)
    if labels is None and test_labels is not None:
        raise UserError(f"test labels {test_labels} need labels of the training images, too; give --labels")
    if labels is None:
        _check_splits(recipe, data_dir, read_test=read_test)  # before hours of training
    elif not (read_test or recipe.seattn.holdout):
        raise UserError("seattn.holdout 0 leaves no image to score the run on where the test split is not read")
    with processes.group(target), unchanged_random_state(target):
        run_dir = RunDir(path, recipe, resume=resume) if processes.first else None
        links = path / DATA
        links_are_new = labels is not None and not (resume and links.is_dir())
        if run_dir is not None and links_are_new and links.exists():
            run_dir.close()
            raise UserError(f"{links} exists, where links to the labelled images are made; give another --out")
        try:
            if labels is not None and run_dir is not None and links_are_new:
                exif = recipe.seattn.exif
                images = read_labelled(data_dir, labels, test_labels, skip_bad=skip_bad, exif=exif)
                link_splits(images, links, recipe.seed, needed=("test",) if read_test else ())
            processes.wait()
            run = TrainingRun(
                recipe,
                data_dir if labels is None else links,
                path=path,
                run_dir=run_dir,
                device=target,
                processes=processes,
                skip_bad=skip_bad,
            )
            return run.run(read_test=read_test, on_epoch=on_epoch)
        finally:
            if run_dir is not None:
                if links_are_new and not (path / "recipe.yaml").exists():  # the run has not started
                    shutil.rmtree(links, ignore_errors=True)
                run_dir.close()


def check_recipe(recipe: Recipe, device: torch.device) -> None:
    """Check what needs no data: the model, the packages for logs, the dtype.

    Raises:
        UserError: if the model is unknown, a package is missing, or the device cannot train in the recipe's dtype.
    """
    check_name(recipe.model)
    check_log(recipe)
    if recipe.amp and recipe.amp_dtype == "float16" and (device.type != "cuda" or recipe.seattn.sam_rho is not None):
        raise UserError("amp_dtype float16 needs CUDA, and no sam_rho; set bfloat16")


def _check_splits(recipe: Recipe, data_dir: Path, *, read_test: bool) -> None:
    """Raise UserError if `data_dir` lacks a split that the run reads."""
    for split in ("train", "test") if read_test else ("train",):
        require_split(data_dir, split)
    if not (read_test or recipe.seattn.holdout or has_split(data_dir, "validation")):
        raise UserError("seattn.holdout 0 leaves no image to score the run on where the test split is not read")


@contextmanager
def unchanged_random_state(device: torch.device) -> Iterator[None]:
    """Restore the global random generators after the body, because a run seeds them in every epoch."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
