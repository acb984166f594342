"""A search for a recipe's best values: Optuna draws them, images held out of the train split judge them.

A search goes on where it stood: trials that were killed from their checkpoints, and with new ones until as many have
ended as are wanted. Any number of processes may work on one study. The test split is never read.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from seattn.core.errors import UserError
from seattn.experiments.search.space import Search, load_search

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class Searched:
    """A study as it stands: its folder, all its trials, and the recipe of the best one, if one is whole."""

    out: Path
    trials: "Sequence[FrozenTrial]"
    best: Path | None


def run_search(
    search: Search | Path,
    data_dir: Path,
    out: Path | None = None,
    *,
    trials: int,
    jobs: int = 1,
    device: str | None = None,
    minutes: float | None = None,
    skip_bad: bool = False,
) -> Searched:
    """Run trials until so many have ended, whole or pruned; the best one's recipe is `out`/best.yaml.

    Args:
        search: a file of `zoo_configs/searches/`, or what `load_search` made of one.
        data_dir: as for `seattn.training.train`; validation/… or a part of train judges, test/… is not read.
        out: where the study and its trials' runs go; `runs/search/<name>` by default.
        trials: how many in all, those of former calls included.
        jobs: processes that share the study from here; others may join by another call with the same `out`.
        device: "cuda", "cpu", …; by default CUDA where there is one.
        minutes: begin nothing after these; a running trial stops after its epoch and is gone on with by the next call.
        skip_bad: leave unreadable images out.

    Raises:
        UserError: for a bad file, bad data, an `out` that is of another search, or three failed trials in a row.
    """
    if find_spec("optuna") is None:
        raise UserError("seattn search needs optuna; pip install 'seattn[search]'")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            "a search runs in its own processes; start seattn search without torchrun, with --jobs for more"
        )
    if isinstance(search, Path):
        search = load_search(search)
    data = _check(search, data_dir, device)
    # Not above: Optuna is an extra, and `load_search` does without.
    import optuna

    from seattn.experiments.search.figures import write_plots
    from seattn.experiments.search.trials import StudyDir, summary, write_tables
    from seattn.experiments.search.worker import Task, run_jobs, work

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    out = out or Path("runs") / "search" / search.name
    study = StudyDir(out, search, data)
    deadline = None if minutes is None else time.time() + 60 * minutes
    task = Task(search, data_dir, out, data, trials, device, skip_bad, deadline)
    try:
        work(task) if jobs == 1 else run_jobs(task, jobs)
    finally:
        done = study.trials()
        with study.lock:
            write_tables(out, search, done)
    _logger.info("%s", summary(done))
    write_plots(out, search, study.study)
    return Searched(out, done, out / "best.yaml" if (out / "best.yaml").exists() else None)


def _check(search: Search, data_dir: Path, device: str | None) -> Mapping[str, str]:
    """What can be known before the first trial; the data in words.

    Raises:
        UserError: if there is no such device, no such data, or a value of the space that no net can be built with.
    """
    import torch

    from seattn.core.device import torch_device
    from seattn.data.folders import find_split, has_split, list_files
    from seattn.data.images import cifar_folder
    from seattn.models.listing import check_name
    from seattn.training.build import create_model
    from seattn.training.log import check_log

    torch_device(device or "cpu")
    check_log(search.recipe)
    cifar = cifar_folder(data_dir)
    files = None if cifar else list_files(find_split(data_dir, "train"))
    shapes = [key for key in search.space if key == "model" or key.startswith("model_kwargs")]
    ends = [{key: kept} for key in shapes for kept in search.space[key].ends()]
    for recipe in [search.recipe, *map(search.recipe_of, ends)]:
        check_name(recipe.model)
        with torch.device("meta"):
            outputs = create_model(replace(recipe, pretrained=False)).num_classes
        if files is not None and outputs != len(files.class_names):
            has = f"{data_dir} has {len(files.class_names)} classes, the model {outputs}"
            raise UserError(f"{has}; set num_classes: {len(files.class_names)}")
    if files is None:
        return {"images": str(cifar)}
    held_out = list_files(find_split(data_dir, "validation")) if has_split(data_dir, "validation") else ()
    return {"images": f"{len(files)} to train, {len(held_out)} to validate", "classes": ", ".join(files.class_names)}
