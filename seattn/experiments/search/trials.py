"""The trials of a search: Optuna chooses their values, and each is trained in a process of its own.

Study.optimize runs `Trials.objective`, which watches the training: each epoch's held-out accuracy is reported to the
pruner, and a training that the pruner or the end of the search stops is ended.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from seattn.core.errors import UserError
from seattn.core.files import is_locked
from seattn.experiments.search.results import short
from seattn.experiments.search.space import Search
from seattn.experiments.search.study import folder_of, number_of, queue_again
from seattn.experiments.study.results import read_result
from seattn.experiments.training import Options, Training

POLL = 0.5  # seconds between two looks at a training
FAILURES = 3  # in a row, after which the search ends
_logger = logging.getLogger("seattn")


class TrialFailed(Exception):  # noqa: N818
    """A training failed: the next trial may succeed."""


class Stopped(Exception):  # noqa: N818
    """The search ends before the trial; the next call resumes the trial."""


@dataclass
class Trials:
    """The objective of a study, and a callback for the end of each trial.

    Args:
        search: the recipe, the space and the options.
        out: the folder of the search.
        options: the options that all trainings share.
        deadline: a time of `time.monotonic` at which trainings are stopped.
        write: writes the results so far.
        stop: set in order to stop all trainings.
    """

    search: Search
    out: Path
    options: Options
    deadline: float
    write: Callable[[], None]
    stop: threading.Event = field(default_factory=threading.Event)
    _failures: int = 0

    def objective(self, trial: Trial) -> float:
        """The held-out top-1 in per cent of a new or an interrupted trial.

        Raises:
            TrialPruned: if the trial is worse than the others were after as many epochs.
            TrialFailed: if it cannot be trained.
            Stopped: if the search ends first; the trial is in the queue again.
        """
        number = number_of(trial)
        trial.set_user_attr("number", number)
        for key, dimension in self.search.space.items():
            dimension.suggest(trial, key)
        _logger.info("trial %d: %s", number, ", ".join(f"{key} {short(v)}" for key, v in trial.params.items()))
        try:
            return self._train(trial, number, folder_of(self.out, trial))
        except Stopped:
            queue_again(trial)
            _logger.info("trial %d is paused; run the same command to resume it", number)
            raise
        except UserError as error:
            if os.strerror(errno.ENOSPC) in str(error):  # the trial can be resumed when there is room again
                queue_again(trial)
                self.stop.set()
                raise
            trial.set_user_attr("reason", str(error))
            _logger.warning("trial %d failed: %s", number, error)
            raise TrialFailed from error

    def _train(self, trial: Trial, number: int, folder: Path) -> float:
        recipe = self.search.recipe_of(trial.params)
        while is_locked(folder):  # by the training of a command that was killed, which ends at once
            self._wait()
        if not (folder / "result.json").exists():
            training = Training(recipe, folder, self.options)
            try:
                while training.is_running():
                    for done in self._report(trial, number, training, recipe.run_epochs):
                        if done < recipe.run_epochs and trial.should_prune():  # the last epoch costs nothing any more
                            _logger.info("trial %d is pruned: it is below the trials before it", number)
                            raise optuna.TrialPruned
                    self._wait()
            finally:
                training.stop()
            list(self._report(trial, number, training, recipe.run_epochs))
            reason = training.failure()
            if reason is not None:
                raise UserError(reason)
        return 100 * read_result(folder / "result.json").top1

    def _wait(self) -> None:
        if self.stop.wait(POLL) or time.monotonic() >= self.deadline:
            raise Stopped

    def _report(self, trial: Trial, number: int, training: Training, epochs: int) -> Iterator[int]:
        """Report the epochs that have ended since the last call to the study; yields the number of finished epochs."""
        for row in training.new_epochs():
            done = int(row["epoch"]) + 1
            trial.report(row["eval_top1"], done)
            _logger.info("trial %d: epoch %d of %d: held-out %.2f %%", number, done, epochs, row["eval_top1"])
            yield done

    def ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Write the results after a trial; the callback of Study.optimize.

        Raises:
            UserError: if three trials in a row failed.
        """
        self.write()
        self._failures = self._failures + 1 if trial.state == TrialState.FAIL else 0
        if self._failures == FAILURES:
            self.stop.set()
            raise UserError(
                f"{FAILURES} trials in a row failed, trial {number_of(trial)} because {trial.user_attrs['reason']}; "
                "narrow the space or correct what is wrong, and run the same command again"
            )
