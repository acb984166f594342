"""The study of a search on disk, which any number of processes share: OUT/study.db and a folder for each trial.

A process holds a lock on its trial's folder for as long as it lives, which the system takes back however it dies. So a
trial that counts as running and whose lock is free was killed; whoever comes next goes on with it from its checkpoint.
Locks on one file, OUT/.lock, keep two processes from choosing, ending or tidying at the same time.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from seattn.core.errors import UserError, first_line
from seattn.core.files import require_writable
from seattn.core.recipe import parse_recipe
from seattn.experiments.search.space import Search, grid_points

DATABASE = "study.db"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)  # what counts; a failed trial is one more to make
_STUDY = "search"
_OWNER = ".owner"
_BUSY_SECONDS = 120  # that SQLite waits for another process to finish writing
_POLL_SECONDS = 0.5
_logger = logging.getLogger("seattn")


def trial_dir(out: Path, number: int) -> Path:
    """The run's folder of a trial."""
    return out / f"trial-{number:04d}"


@dataclass(frozen=True)
class Claim:
    """A trial that this process runs, until `StudyDir.end`; `reported` are the epochs that a killed one told of."""

    trial: Trial
    params: dict[str, Any]
    path: Path
    owner: FileLock
    reported: set[int]


class StudyDir:
    """The study in `out`, made if there is none.

    Args:
        data: what the trials train on, in words, so that no other data go into the same study.

    Raises:
        UserError: if `out` holds something else, cannot be written, or is a study of another search or of other data.
    """

    def __init__(self, out: Path, search: Search, data: Mapping[str, str]) -> None:
        self.out, self.search = out, search
        known = (DATABASE, f"{DATABASE}-journal", ".lock")
        try:
            foreign = not (out / DATABASE).exists() and [path.name for path in out.iterdir() if path.name not in known]
        except FileNotFoundError:
            foreign = []
        except OSError as error:
            raise UserError(f"--out {out} is no folder that can be read: {error.strerror}") from error
        if foreign:
            raise UserError(f"{out} holds no search but {min(foreign)}; give another --out")
        require_writable(out)
        self.lock = FileLock(out / ".lock")
        made_from = _made_from(search, data)
        with self.lock:
            self.study = _open(out / DATABASE)
            self.study.pruner = _pruner(search)
            before = self.study.user_attrs.get("made_from")
            if before is None:
                self.study.set_user_attr("made_from", made_from)
            else:
                _check_same(out, before, made_from)

    def claim(self, wanted: int, out_of_time: Callable[[], bool]) -> Claim | None:
        """A trial to run: one that was killed, else a new one while fewer than `wanted` have ended or run.

        Waits while only other processes have trials left to end, as one of them may be killed.

        Returns:
            None when there is nothing left to do.
        """
        told = False
        while not out_of_time():
            with self.lock:
                trials = self.study.get_trials(deepcopy=False)
                running = [trial for trial in trials if trial.state == TrialState.RUNNING]
                for frozen in running:
                    if (owner := self._owner(frozen.number)) is not None:
                        self._set_sampler(frozen.number)
                        return self._begin(Trial(self.study, frozen._trial_id), owner, set(frozen.intermediate_values))
                if len(running) + sum(trial.state in ENDED for trial in trials) < wanted and self._choose(trials):
                    self._set_sampler(len(trials))
                    trial = self.study.ask()
                    owner = self._owner(trial.number)
                    assert owner is not None  # nobody else knows this number yet
                    return self._begin(trial, owner, set())
            if not running:
                return None
            if not told:
                _logger.info("waiting for the last trials, which other processes run")
                told = True
            time.sleep(_POLL_SECONDS)
        return None

    def end(self, claim: Claim, state: TrialState, value: float | None = None, reason: str | None = None) -> None:
        """Write down how a trial ended, and why where it failed."""
        with self.lock:
            if reason is not None:
                claim.trial.set_user_attr("reason", reason)
            self.study.tell(claim.trial, value, state=state)
            (claim.path / _OWNER).unlink(missing_ok=True)
            claim.owner.release()

    def trials(self) -> list[FrozenTrial]:
        """All that were begun, by number."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]

    def _begin(self, trial: Trial, owner: FileLock, reported: set[int]) -> Claim:
        """Its values chosen, those that a killed process had chosen already left as they are."""
        for key, dimension in self.search.space.items():
            dimension.suggest(trial, key)
        return Claim(trial, dict(trial.params), trial_dir(self.out, trial.number), owner, reported)

    def _owner(self, number: int) -> FileLock | None:
        """The lock of that trial, unless a living process has it."""
        folder = trial_dir(self.out, number)
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / _OWNER)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock

    def _set_sampler(self, number: int) -> None:
        """Seeded by the trial's number: neither processes nor the same search taken up again draw the same values."""
        seed = self.search.seed * 100_003 + number
        self.study.sampler = (
            optuna.samplers.TPESampler(seed=seed)
            if self.search.sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=seed)
        )

    def _choose(self, trials: list[FrozenTrial]) -> bool:
        """Queue the grid's next point, where there is a grid; False if it has none left.

        Not Optuna's GridSampler, which means to be run by `optimize`: at the last point its `tell` raises.
        """
        if self.search.sampler != "grid" or any(trial.state == TrialState.WAITING for trial in trials):
            return True
        points = [dict(zip(self.search.space, point, strict=True)) for point in grid_points(self.search)]
        random.Random(self.search.seed).shuffle(points)  # fewer trials than points then still see all of each range
        begun = [trial.params for trial in trials]
        point = next((point for point in points if point not in begun), None)
        if point is not None:
            self.study.enqueue_trial(point)
        else:
            _logger.info("the grid has no more: all its %d points were tried", len(points))
        return point is not None


def _open(path: Path) -> optuna.Study:
    url = URL.create("sqlite", database=str(path.resolve())).render_as_string()
    if make_url(url).database != str(path.resolve()):
        raise UserError(f"--out {path.parent}: a database's path must not have such signs; give a plainer one")
    try:
        url = url.replace("{", "{{").replace("}", "}}")  # Optuna formats it
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _BUSY_SECONDS}})
        return optuna.create_study(storage=storage, study_name=_STUDY, direction="maximize", load_if_exists=True)
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        raise UserError(f"{path} is no study that this Optuna can read: {first_line(error)}") from error


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    """The pruner, which is told after each epoch; steps are epochs done."""
    epochs = search.recipe.run_epochs
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    if search.pruner == "median":
        # Not in the first third: while the rate is high, scores say little about where a trial ends.
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 3))
    return optuna.pruners.NopPruner()


def _made_from(search: Search, data: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    space = {key: str(dimension) for key, dimension in search.space.items()}
    return {"recipe": search.recipe.to_dict(), "space": space, "data": dict(data)}


def _check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UserError, naming what differs, unless both are of the same search."""
    for part in now:
        # A recipe of then gets the defaults of keys that have come since.
        old = parse_recipe(before[part], source=str(out)).to_dict() if part == "recipe" else before[part]
        old, new = _flat(old), _flat(now[part])
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if keys:
            changes = "; ".join(f"{key}: {old.get(key, 'nothing')} then, {new.get(key, 'nothing')} now" for key in keys)
            raise UserError(f"{out} was begun with another {part} ({changes}); undo that or give another --out")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    ours = values.get("seattn", {})
    return {**{key: value for key, value in values.items() if key != "seattn"}} | {
        f"seattn.{key}": value for key, value in ours.items()
    }
