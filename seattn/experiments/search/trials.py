"""The study of a search on disk, which any number of processes share: OUT/study.db and a folder for each trial.

A process holds a lock on its trial's folder for as long as it lives, which the system takes back however it dies. So a
trial that counts as running and whose lock is free was killed; whoever comes next goes on with it from its checkpoint.
Locks on one file, OUT/.lock, keep two processes from choosing, ending or tidying at the same time.

What a search leaves to read: trials.csv, best.yaml, a table; and of its trials' runs, what is worth its space.
The runs of the three best trials stay whole. Of the others weights and checkpoints go; recipe, log and result stay.
"""

import csv
import io
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from seattn.core.errors import UserError, first_line
from seattn.core.files import require_writable, write_text
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


KEPT = 3
_SHOWN = 10
_WEIGHTS = ("*.pth.tar", "model.safetensors", "config.json")


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The whole trials, best first; of equal ones the earlier."""
    return sorted((t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: (-(t.value or 0.0), t.number))


def tidy(out: Path, trials: Sequence[FrozenTrial]) -> None:
    """Remove the weights of the trials that have ended and are not among the best."""
    best = {trial.number for trial in ranked(trials)[:KEPT]}
    for trial in trials:
        if trial.state.is_finished() and trial.number not in best:
            for pattern in _WEIGHTS:
                for path in trial_dir(out, trial.number).glob(pattern):
                    path.unlink(missing_ok=True)


def write_tables(out: Path, search: Search, trials: Sequence[FrozenTrial]) -> None:
    """trials.csv, and best.yaml once a trial is whole."""
    text = io.StringIO()
    keys = list(search.space)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "held_out_top1", "epochs", "train_seconds", *keys, "reason"])
    for trial in trials:
        values = [trial.params.get(key, "") for key in keys]
        score = trial.value if trial.state.is_finished() else last_score(trial)
        state = trial.state.name.lower()
        epochs = read_summary(trial_dir(out, trial.number))
        seconds = round(sum(row["train_seconds"] for row in epochs), 1)
        reason = trial.user_attrs.get("reason", "")
        writer.writerow([trial.number, state, "" if score is None else score, len(epochs), seconds, *values, reason])
    write_text(out / "trials.csv", text.getvalue())
    if best := ranked(trials)[:1]:
        recipe = yaml.safe_dump(search.recipe_of(best[0].params).to_dict(), sort_keys=False)
        write_text(out / "best.yaml", _head(out, search, trials, best[0]) + recipe)


def last_score(trial: FrozenTrial) -> float | None:
    """The held-out top-1 in percent where the trial stands."""
    return trial.intermediate_values[trial.last_step] if trial.last_step is not None else None


def read_summary(run: Path) -> list[dict[str, float]]:
    """A row an epoch of a trial's run, none if it has not begun."""
    path = run / "summary.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _head(out: Path, search: Search, trials: Sequence[FrozenTrial], best: FrozenTrial) -> str:
    path, interval = trial_dir(out, best.number) / "result.json", ""
    if path.exists():
        result = json.loads(path.read_text(encoding="utf-8"))
        low, high = 100 * result["top1_low"], 100 * result["top1_high"]
        interval = f" (95 % interval {low:.2f} to {high:.2f}, n = {result['n']:,})"
    whole = len(ranked(trials))
    return (
        f"# Trial {best.number} of the search {search.name}: held-out top-1 {best.value:.2f} %{interval}.\n"
        f"# The best of {len(trials)} trials, {whole} of them whole, all judged on the same images: optimistic, the\n"
        "# more so the more trials. The test split has not been read; this reads it once:\n"
        "#   seattn train best.yaml --data-dir DIR\n"
    )


def best_table(search: Search, trials: Sequence[FrozenTrial]) -> Table:
    """The best trials and the values they were given; held-out top-1 in percent."""
    keys = [key.removeprefix("seattn.").removeprefix("model_kwargs.") for key in search.space]
    table = Table("trial", "top-1 %", *keys, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns:
        column.justify, column.overflow = "right", "fold"
    for trial in ranked(trials)[:_SHOWN]:
        values = [short(trial.params[key]) for key in search.space]
        table.add_row(str(trial.number), f"{trial.value:.2f}", *map(Text, values))
    return table


def summary(trials: Sequence[FrozenTrial]) -> str:
    """How many trials ended how, in one line."""
    names = {
        TrialState.COMPLETE: "whole",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "to be gone on with",
    }
    counts = {name: sum(trial.state == state for trial in trials) for state, name in names.items()}
    return f"{len(trials)} trials: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def short(value: object) -> str:
    """A value in three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
