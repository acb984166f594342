"""How far a study is: a line an epoch, with the run's place among all and an estimate of what is left."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from statistics import fmean

from seattn._history import Row
from seattn.experiments.study.runs import StudyRun

_progress_log = logging.getLogger("seattn.ablation")
_progress_log.setLevel(logging.INFO)  # of its own: while a run trains, the package's other messages are quiet


class Watch:
    """Told what happens, it says so.

    Args:
        runs: all of the study, in order, finished ones too.
        wanted: those that are to be trained.
        jobs: how many are trained at once.
        clock: seconds from anywhere.
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
        self._since: dict[str, float] = {}  # of a run: when its epoch began
        self._seconds: dict[str, list[float]] = defaultdict(list)  # of a variant: each epoch's
        self._waits = False

    def begin(self, run: StudyRun) -> None:
        done = run.epochs_done()
        _progress_log.info(
            "%s%s", self._place[run.name], f", goes on after {done} of {run.epochs} epochs" if done else ""
        )
        self._since[run.name] = self._clock()

    def epoch(self, run: StudyRun, row: Row) -> None:
        """After each; the first of a run counts from its beginning, data and all."""
        now, done = self._clock(), int(row["epoch"]) + 1
        self._seconds[run.variant].append(now - self._since[run.name])
        self._since[run.name] = now
        self._epochs_left[run.name] = run.epochs - done
        _progress_log.info(
            "%s, epoch %d of %d: held-out %.2f %%; about %s left",
            *(self._place[run.name], done, run.epochs, row["eval_top1"], _rounded(self.seconds_left())),
        )

    def finished(self, run: StudyRun) -> None:
        self._epochs_left[run.name] = 0  # early stopping may leave some
        self._waits = False

    def failed(self, run: StudyRun, reason: str) -> None:
        self._epochs_left[run.name] = 0
        _progress_log.info("%s failed, the others go on: %s", self._place[run.name], " ".join(reason.split()))

    def wait_for(self, runs: Sequence[StudyRun]) -> None:
        """Said once for each time."""
        if not self._waits:
            _progress_log.info("waiting for %s, which another command trains", "; ".join(run.title for run in runs))
        self._waits = True

    def seconds_left(self) -> float:
        """From the epochs of this command: of the same variant where there are some, else of all."""
        every = fmean(seconds for of_variant in self._seconds.values() for seconds in of_variant)
        each = {variant: fmean(seconds) for variant, seconds in self._seconds.items()}
        total = sum(left * each.get(self._variant[name], every) for name, left in self._epochs_left.items())
        return total / min(self._jobs, max(1, sum(left > 0 for left in self._epochs_left.values())))


def _rounded(seconds: float) -> str:
    """To the minute where there are many of them."""
    return str(timedelta(seconds=round(seconds) if seconds < 600 else 60 * round(seconds / 60)))
