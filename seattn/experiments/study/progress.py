"""The log of a study's progress."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from statistics import fmean

from seattn.experiments.study.runs import StudyRun
from seattn.training.run_dir import Row

_logger = logging.getLogger("seattn")


class Progress:
    """Logs one line an epoch, with the run's place in the study and an estimate of the time left.

    Args:
        runs: all runs of the study in order, finished ones too.
        wanted: the runs that are to be trained.
        jobs: the number of runs that are trained at once.
        clock: a clock in seconds.
    """

    def __init__(
        self,
        runs: Sequence[StudyRun],
        wanted: Sequence[StudyRun],
        jobs: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = {run.name: f"run {i} of {len(runs)}: {run.title}" for i, run in enumerate(runs, start=1)}
        self._epochs_left = {run.name: run.epochs - run.epochs_done() for run in wanted if not run.finished()}
        self._variant = {run.name: run.variant for run in runs}
        self._jobs, self._clock = jobs, clock
        self._epoch_began: dict[str, float] = {}  # by the run's name
        self._seconds: dict[str, list[float]] = defaultdict(list)  # of each epoch, by the variant's name
        self._waits = False

    def begin(self, run: StudyRun) -> None:
        """A run starts, or continues after an earlier command."""
        done = run.epochs_done()
        resumed = f", continues after {done} of {run.epochs} epochs" if done else ""
        _logger.info("%s%s", self._place[run.name], resumed)
        self._epoch_began[run.name] = self._clock()

    def epoch(self, run: StudyRun, row: Row) -> None:
        """An epoch has ended; the first one of a run counts from the start of its process."""
        now, done = self._clock(), int(row["epoch"]) + 1
        self._seconds[run.variant].append(now - self._epoch_began[run.name])
        self._epoch_began[run.name] = now
        self._epochs_left[run.name] = run.epochs - done
        _logger.info(
            "%s, epoch %d of %d: held-out %.2f %%; about %s left",
            self._place[run.name],
            done,
            run.epochs,
            row["eval_top1"],
            _rounded(self.seconds_left()),
        )

    def finished(self, run: StudyRun) -> None:
        """A run has ended, which early stopping may do before its last epoch."""
        self._epochs_left[run.name] = 0
        self._waits = False

    def failed(self, run: StudyRun, reason: str) -> None:
        """A run has failed."""
        self._epochs_left[run.name] = 0
        _logger.info("%s failed, the other runs continue: %s", self._place[run.name], reason)

    def wait_for(self, runs: Sequence[StudyRun]) -> None:
        """Only runs of other commands are left; logged once each time that this happens."""
        if not self._waits:
            _logger.info("waiting for %s, which another command trains", "; ".join(run.title for run in runs))
        self._waits = True

    def seconds_left(self) -> float:
        """An estimate from this command's epochs, of the same variant where there are any, else of all variants."""
        every = fmean(seconds for times in self._seconds.values() for seconds in times)
        by_variant = {variant: fmean(seconds) for variant, seconds in self._seconds.items()}
        total = sum(left * by_variant.get(self._variant[name], every) for name, left in self._epochs_left.items())
        return total / min(self._jobs, max(1, sum(left > 0 for left in self._epochs_left.values())))


def _rounded(seconds: float) -> str:
    """Hours, minutes and seconds; to the minute from ten minutes on."""
    return str(timedelta(seconds=round(seconds) if seconds < 600 else 60 * round(seconds / 60)))
