"""Train the runs of a study that are missing: one after the other here, or several processes at once.

No run is trained by two processes, of one command or of two: each holds the run's lock while it is at it. What
another command holds is left until it is free, and trained then if that command ended before the run did.
"""

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import Timeout

from seattn._ablation_progress import Watch
from seattn._history import Row
from seattn.core.errors import UserError, first_line
from seattn.experiments.study.runs import StudyRun
from seattn.training.driver import train

POLL = 5.0  # seconds between looks at runs that another command holds
_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class How:
    """What all runs of a command have in common."""

    data_dir: Path
    device: str | None
    skip_bad: bool


@dataclass(frozen=True)
class Ended:
    """How it went with a run: trained, unless another process had it or it failed for the reason `failure`."""

    run: StudyRun
    claimed: bool = False
    failure: str | None = None


class Workers(Protocol):
    """What trains runs; `busy` of them now."""

    @property
    def busy(self) -> int:
        """Runs that have started and have not ended."""

    def start(self, run: StudyRun) -> None:
        """Begin with `run`."""

    def ended(self, timeout: float) -> list[Ended]:
        """Those that have ended since the last call; waits up to `timeout` seconds for one."""

    def stop(self) -> None:
        """End what still runs."""


class InTurn:
    """Trains in this process; `start` returns when the run has ended."""

    busy = 0

    def __init__(self, how: How, watch: Watch) -> None:
        self.how, self.watch = how, watch
        self._ended: list[Ended] = []

    def start(self, run: StudyRun) -> None:
        self._ended.append(train_run(run, self.how, lambda row: self.watch.epoch(run, row)))

    def ended(self, timeout: float) -> list[Ended]:
        if not self._ended:
            time.sleep(timeout)
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        pass


def train_run(run: StudyRun, how: How, on_epoch: Callable[[Row], None]) -> Ended:
    """Train one run to its end, from where it stands; the package's messages below warnings are left out."""
    level = _logger.level
    try:
        with run.lock():
            if not run.finished():  # by another command, since we looked
                _logger.setLevel(logging.WARNING)  # the study's progress has a line an epoch of its own
                train(
                    *(run.recipe, how.data_dir, run.folder),
                    resume=True,
                    device=how.device,
                    skip_bad=how.skip_bad,
                    read_test=False,
                    on_epoch=on_epoch,
                )
        return Ended(run)
    except Timeout:
        return Ended(run, claimed=True)
    except UserError as error:
        return Ended(run, failure=str(error))
    except Exception as error:  # a fault of ours, or of the device: it is shown, and the other runs go on
        _logger.error("%s: %s", run.title, traceback.format_exc())
        return Ended(run, failure=f"{type(error).__name__}: {first_line(error)}")
    finally:
        _logger.setLevel(level)


def train_missing(runs: Sequence[StudyRun], how: How, jobs: int, watch: Watch) -> dict[str, str]:
    """Train those of `runs` that are not finished, `jobs` at once; the reasons of those that failed, by title."""
    from seattn._ablation_processes import RunPool

    left, failures = [run for run in runs if not run.finished()], {}
    workers: Workers = InTurn(how, watch) if jobs == 1 else RunPool(how, watch, jobs)
    try:
        while left or workers.busy:
            free = None if workers.busy >= jobs else next((run for run in left if not run.is_claimed()), None)
            if free is not None:
                left.remove(free)
                watch.begin(free)
                workers.start(free)
            elif not workers.busy:
                watch.wait_for(left)
            for ended in workers.ended(0 if free is not None else POLL):
                if ended.claimed:
                    left.append(ended.run)
                elif ended.failure is not None:
                    failures[ended.run.title] = ended.failure
                    watch.failed(ended.run, ended.failure)
                else:
                    watch.finished(ended.run)
    finally:
        workers.stop()
    return failures
