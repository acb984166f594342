"""Train a recipe on a data folder: weights, their config and one row with the accuracy on the test split."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from seattn.core.device import torch_device
from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.rows import AccuracyRow
from seattn.data.folders import find_split, has_split
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
    on_epoch: Callable[[Row], None] | None = None,
) -> AccuracyRow | None:
    """Train the recipe's model on `data_dir`, and read the test split once, at the end.

    Under `torchrun` each process takes its part of every batch; the first process writes. The global random generators
    of Python, NumPy and torch are as before when the function returns.

    Args:
        recipe: a file of `zoo_configs/`, or the result of `load_recipe`.
        data_dir: an image folder (train/<class>/<image>, test/…, validation/… optional) or torchvision's CIFAR files.
        out_dir: the folder for the run's files; `runs/<model>-s<seed>` by default.
        resume: continue the run in `out_dir` after its last finished epoch, if it has one.
        device: "cuda", "cpu", …; by default CUDA where there is one.
        skip_bad: leave unreadable images out, with a warning that counts them.
        overrides: recipe keys to replace, where `recipe` is a file.
        read_test: False does not read the test split, which may then be absent; the row is of the held-out images.
        on_epoch: called after each epoch with its row of `summary.csv`, in the first process; an exception from it ends
            the run, which `resume` continues.

    Returns:
        The row of the test split, or of the held-out images; None in all processes but the first.

    Raises:
        UserError: for a bad recipe, bad data, or an `out_dir` that cannot be used; nothing is half-written.
    """
    if isinstance(recipe, Path):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        raise ValueError(f"overrides replace the keys of a recipe's file; give them to load_recipe, got {overrides!r}")
    check_name(recipe.model)
    check_log(recipe)
    processes = Distributed()
    target = torch_device(processes.device(device))
    if recipe.amp and recipe.amp_dtype == "float16" and (target.type != "cuda" or recipe.seattn.sam_rho is not None):
        raise UserError("amp_dtype float16 needs CUDA, and no sam_rho; set bfloat16")
    for split in ("train", "test") if read_test else ("train",):  # before hours of training
        if not has_split(data_dir, split):
            find_split(data_dir, split)  # raises an error that names the missing split
    if not (read_test or recipe.seattn.holdout or has_split(data_dir, "validation")):
        raise UserError("seattn.holdout 0 leaves no image to score the run on where the test split is not read")
    path = out_dir or Path("runs") / f"{recipe.model}-s{recipe.seed}"
    with processes.group(target), _unchanged_random_state(target):
        run_dir = RunDir(path, recipe, resume=resume) if processes.first else None
        processes.wait()
        try:
            run = TrainingRun(
                recipe,
                data_dir,
                path=path,
                run_dir=run_dir,
                device=target,
                processes=processes,
                skip_bad=skip_bad,
            )
            try:
                return run.run(read_test=read_test, on_epoch=on_epoch)
            finally:
                if run.log is not None:
                    run.log.close()
        finally:
            if run_dir is not None:
                run_dir.close()


@contextmanager
def _unchanged_random_state(device: torch.device) -> Iterator[None]:
    """Restore the global random generators after the body, because a run seeds them in every epoch."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
