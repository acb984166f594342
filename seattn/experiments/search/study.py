"""The Optuna study of a search: its database, its sampler, its pruner, and the folders of its trials.

A trial that was interrupted is a failed trial for Optuna, which queues it again with its values and attributes under a
new number (RetryHeartbeatStaleTrialCallback). Here both are one trial. It keeps its folder, and its first number in the
attribute "number".
"""

import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, BruteForceSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL, make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from seattn.core.errors import UserError, first_line
from seattn.core.files import require_writable
from seattn.core.recipe import parse_recipe
from seattn.experiments.search.space import Search

DATABASE = "study.db"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)  # the trials that count; a failed trial is replaced by another one
HEARTBEAT = 10  # seconds; a trial whose process is silent for three times as long is queued again
_BUSY_SECONDS = 120  # for which SQLite waits until another process has finished writing


def open_study(out: Path, search: Search, data: Mapping[str, str]) -> optuna.Study:
    """The study in `out`, which is created if there is none.

    Args:
        out: the folder of the search.
        search: the recipe, the space and the options.
        data: a description of the data, so that a study has trials on the same data only.

    Raises:
        UserError: if `out` holds something else, cannot be written, or has a study of another search or of other data.
    """
    known = (DATABASE, f"{DATABASE}-journal", ".lock")
    try:
        foreign = not (out / DATABASE).exists() and [path.name for path in out.iterdir() if path.name not in known]
    except FileNotFoundError:
        foreign = []
    except OSError as error:
        raise UserError(f"--out {out} cannot be read as a folder: {error.strerror}") from error
    if foreign:
        raise UserError(f"{out} is not the folder of a search: it holds {min(foreign)}; give another --out")
    require_writable(out)
    study = _open(out / DATABASE, search)
    made_from = _describe(search, data)
    before = study.user_attrs.get("made_from")
    if before is None:
        study.set_user_attr("made_from", made_from)
    else:
        _check_same(out, before, made_from)
    return study


def _open(path: Path, search: Search) -> optuna.Study:
    url = URL.create("sqlite", database=str(path.resolve())).render_as_string()
    if make_url(url).database != str(path.resolve()):
        raise UserError(f"--out {path.parent}: a database cannot have this path; give one with plainer characters")
    try:
        storage = RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),  # Optuna formats the text
            engine_kwargs={"connect_args": {"timeout": _BUSY_SECONDS}},
            heartbeat_interval=HEARTBEAT,
            grace_period=3 * HEARTBEAT,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )
        return optuna.create_study(
            storage=storage,
            study_name="search",
            direction="maximize",
            load_if_exists=True,
            sampler=SeededSampler(search),
            pruner=_pruner(search),
        )
    except OperationalError as error:  # a full disk, or no right to write
        raise UserError(f"cannot write {path}: {sqlite_reason(error)}") from error
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        raise UserError(f"{path} is not a study that this Optuna can read: {first_line(error)}") from error


def sqlite_reason(error: BaseException) -> str | None:
    """SQLite's own reason for an error of SQLAlchemy or of Optuna, such as a full disk; None if SQLite had no error."""
    first: BaseException | None = error
    while first is not None and not isinstance(first, sqlite3.Error):
        first = first.__cause__ or first.__context__
    return None if first is None else first_line(first)


class SeededSampler(BaseSampler):
    """A sampler whose seed for each choice follows from the search's seed, the trial's number and the key.

    A search in several calls or processes therefore makes the same choices as one in a single call, unless the sampler
    depends on scores. Two processes never make the same draw.
    """

    def __init__(self, search: Search) -> None:
        kinds: dict[str, Callable[..., BaseSampler]] = {
            "tpe": TPESampler,
            "random": RandomSampler,
            "grid": BruteForceSampler,
        }
        self._kind, self._seed = kinds[search.sampler], search.seed

    def _sampler(self, trial: FrozenTrial, key: str = "") -> BaseSampler:
        return self._kind(seed=zlib.crc32(f"{self._seed} {trial.number} {key}".encode()))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler = self._sampler(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler(trial).after_trial(study, trial, state, values)


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    """The pruner; its steps are finished epochs."""
    epochs = search.recipe.run_epochs
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    if search.pruner == "median":
        # Not in the first third: while the learning rate is high, scores tell little about a trial's end.
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 3))
    return optuna.pruners.NopPruner()


def number_of(trial: FrozenTrial | Trial) -> int:
    """The number of a trial for people, which an interruption does not change."""
    return int(trial.user_attrs.get("number", trial.number))


def folder_of(out: Path, trial: FrozenTrial | Trial) -> Path:
    """The folder of a trial's run."""
    return out / f"trial-{number_of(trial):04d}"


def queue_again(trial: Trial) -> None:
    """Let the next free process continue this interrupted trial."""
    RetryHeartbeatStaleTrialCallback()(trial.study, trial.study.get_trials()[trial.number])


def all_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials by number; of an interrupted trial, the last attempt."""
    attempts = {number_of(trial): trial for trial in study.get_trials(deepcopy=False)}
    return [attempts[number] for number in sorted(attempts)]


def _describe(search: Search, data: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    space = {key: str(dimension) for key, dimension in search.space.items()}
    return {"recipe": search.recipe.to_dict(), "space": space, "data": dict(data)}


def _check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UserError, naming the keys that differ, unless both describe one search."""
    for part in now:
        # An older recipe gets the defaults of keys that were added since.
        old = parse_recipe(before[part], source=str(out)).to_dict() if part == "recipe" else before[part]
        old, new = _flat(old), _flat(now[part])
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if keys:
            changes = "; ".join(f"{key}: {old.get(key, 'nothing')} then, {new.get(key, 'nothing')} now" for key in keys)
            raise UserError(f"{out} was started with another {part} ({changes}); undo the change or give another --out")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    own = {f"seattn.{key}": value for key, value in values.get("seattn", {}).items()}
    return {**{key: value for key, value in values.items() if key != "seattn"}, **own}
