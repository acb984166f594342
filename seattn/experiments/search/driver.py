"""A search for a recipe's best values: Optuna chooses them, and images held out of the train split score them.

A search can be stopped, killed and started again at any time: interrupted trials continue after their last finished
epoch. Several commands may work on one study. The test split is never read.
"""

import logging
import math
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import torch
from filelock import FileLock
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from seattn.core.device import torch_device
from seattn.core.errors import UserError, counted
from seattn.data.folders.files import list_files
from seattn.data.folders.splits import find_split, has_split
from seattn.data.images import cifar_folder
from seattn.experiments.search.figures import write_figures
from seattn.experiments.search.results import summary, write_results
from seattn.experiments.search.space import Search, load_search
from seattn.experiments.search.study import DATABASE, ENDED, HEARTBEAT, all_trials, open_study, sqlite_reason
from seattn.experiments.search.trials import Stopped, TrialFailed, Trials
from seattn.experiments.training import Options
from seattn.models.listing import check_name
from seattn.training.build import create_model
from seattn.training.log import check_log

_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class Searched:
    """The state of a search: its folder, its trials, and the recipe of the best one, if a trial is complete."""

    out: Path
    trials: Sequence[FrozenTrial]
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
    """Train trials until `trials` of them have ended, complete or pruned; the best one's recipe is `out`/best.yaml.

    Args:
        search: a file of `zoo_configs/searches/`, or the result of `load_search`.
        data_dir: the folder of the images, as for `train`; the test split is not read.
        out: the folder of the study and of its trials' runs; `runs/search/<name>` by default.
        trials: the number of trials in all, with those of earlier calls.
        jobs: the number of trials that are trained at once; another call with the same `out` adds more.
        device: "cuda", "cpu", …; by default CUDA where there is one.
        minutes: stop after this time; the next call resumes the trials that were not finished.
        skip_bad: leave unreadable images out.

    Raises:
        UserError: for a bad file, bad data, an `out` of another search, or three failed trials in a row.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("a search starts its own processes; run seattn search without torchrun, with --jobs for more")
    if isinstance(search, Path):
        search = load_search(search)
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    data = _check(search, data_dir, device)
    out = out or Path("runs") / "search" / search.name
    options = Options(data_dir, device, skip_bad, threads=max(1, torch.get_num_threads() // jobs))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = open_study(out, search, data)

        def write() -> None:
            with FileLock(out / ".lock"):  # another command may write its results at this moment
                write_results(out, search, all_trials(study))

        try:
            _optimize(study, Trials(search, out, options, deadline, write), trials, jobs)
        except Stopped:
            pass
        except (optuna.exceptions.StorageInternalError, OperationalError, AssertionError) as error:
            # Optuna raises AssertionError where it cannot write that a trial has ended
            reason = sqlite_reason(error)
            if reason is None:
                raise
            raise UserError(f"cannot write {out / DATABASE}: {reason}; the same command resumes the search") from error
        finally:
            write()
        ended = all_trials(study)
        _logger.info("%s", summary(ended))
        write_figures(out, search, study)
    return Searched(out, ended, out / "best.yaml" if (out / "best.yaml").exists() else None)


def _optimize(study: optuna.Study, trials: Trials, wanted: int, jobs: int) -> None:
    """Train until `wanted` trials have ended, those of earlier calls and of other commands included."""
    waited = False
    while time.monotonic() < trials.deadline:
        optuna.storages.fail_stale_trials(study)
        states = [trial.state for trial in all_trials(study)]
        running = states.count(TrialState.RUNNING)
        missing = wanted - running - sum(states.count(state) for state in ENDED)
        points = {tuple(sorted(trial.params.items())) for trial in study.get_trials(deepcopy=False)}
        if len(points) >= trials.search.points() and TrialState.WAITING not in states:
            _logger.info("the grid is complete: %s tried", counted(len(points), "point"))
            missing = 0
        if missing > 0:
            enough = MaxTrialsCallback(wanted, states=(*ENDED, TrialState.RUNNING))
            with ThreadPoolExecutor(1) as pool:  # Ctrl-C is an exception in the main thread, which must not wait then
                optimized = pool.submit(
                    study.optimize,
                    trials.objective,
                    n_trials=missing,
                    n_jobs=jobs,
                    catch=(TrialFailed,),
                    callbacks=[enough, trials.ended],
                )
                try:
                    optimized.result()
                except BaseException:
                    trials.stop.set()
                    raise
        elif running and not waited:
            waited = True
            _logger.info("waiting for %s of other commands, which run or were killed", counted(running, "trial"))
            time.sleep(4 * HEARTBEAT)
        else:
            return


def _check(search: Search, data_dir: Path, device: str | None) -> Mapping[str, str]:
    """Find what would fail every trial; returns a description of the data.

    Raises:
        UserError: for an unknown device, missing data, or values of the space with which no net can be built.
    """
    torch_device(device or "cpu")
    check_log(search.recipe)
    cifar = cifar_folder(data_dir)
    files = None if cifar else list_files(find_split(data_dir, "train"))
    shapes = [key for key in search.space if key == "model" or key.startswith("model_kwargs")]
    ends = [{key: param} for key in shapes for param in search.space[key].ends()]
    for recipe in [search.recipe, *map(search.recipe_of, ends)]:
        check_name(recipe.model)
        with torch.device("meta"):
            outputs = create_model(replace(recipe, pretrained=False)).num_classes
        if files is not None and outputs != len(files.class_names):
            raise UserError(
                f"{data_dir} has {len(files.class_names)} classes, the model {outputs}; set num_classes: "
                f"{len(files.class_names)}"
            )
    if files is None:
        return {"images": str(cifar)}
    held_out = list_files(find_split(data_dir, "validation")) if has_split(data_dir, "validation") else ()
    return {"images": f"{len(files)} to train, {len(held_out)} to validate", "classes": ", ".join(files.class_names)}
