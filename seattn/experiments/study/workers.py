"""Train the runs of a study that are missing: one after the other here, or several processes at once.

No run is trained by two processes, of one command or of two: each holds the run's lock while it is at it. What
another command holds is left until it is free, and trained then if that command ended before the run did.

How far a study is: a line an epoch, with the run's place among all and an estimate of what is left.

Runs of a study in processes of their own, each with its share of the threads.
A process a run, not a pool: one that the system kills takes no other with it, and its run is named. They end with the
command, even where that is killed, so that nothing trains on unseen.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch
from filelock import Timeout

from seattn.core.errors import UserError, first_line
from seattn.experiments.study.runs import StudyRun
from seattn.training.driver import train
from seattn.training.run_dir import Row

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


class RunPool:
    """Trains up to `jobs` runs at once."""

    def __init__(self, how: How, watch: Watch, jobs: int) -> None:
        self.how, self.watch = how, watch
        self.threads = max(1, torch.get_num_threads() // jobs)
        self._of: dict[Any, tuple[StudyRun, SpawnProcess]] = {}  # by the connection that it talks through

    @property
    def busy(self) -> int:
        return len(self._of)

    def start(self, run: StudyRun) -> None:
        context = multiprocessing.get_context("spawn")  # a forked one could not use CUDA or torch's threads
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(theirs, run, self.how, self.threads))
        process.start()
        theirs.close()  # else its end would never be seen
        self._of[ours] = run, process

    def ended(self, timeout: float) -> list[Ended]:
        if not self._of:
            time.sleep(timeout)
        ended = []
        for ready in wait(list(self._of), timeout):
            talks: Any = ready  # a connection: no others were given
            run, process = self._of[talks]
            try:
                message = talks.recv()
            except (EOFError, OSError):
                process.join()
                message = Ended(run, failure=f"its process ended by itself, {_how(process.exitcode)}")
            if isinstance(message, Ended):
                del self._of[talks]
                ended.append(message)
                process.join()
            elif isinstance(message, logging.LogRecord):
                _logger.handle(message)
            else:
                self.watch.epoch(run, message)
        return ended

    def stop(self) -> None:
        """Every file of a run is whole or absent, so a process may end anywhere."""
        for _, process in self._of.values():
            process.terminate()
        for _, process in self._of.values():
            process.join()
        self._of.clear()


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"by signal {signal.Signals(-exitcode).name}; is there memory for so many jobs?"
    return f"with exit code {exitcode}"


def _work(talks: "Connection[Any, Any]", run: StudyRun, how: How, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command that started us ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  no bar: several on one terminal would overwrite each other
    _logger.addHandler(_Sender(talks.send))
    talks.send(train_run(run, how, talks.send))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Sender(logging.Handler):
    """Sends records on, with their text made."""

    def __init__(self, send: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        self.send(record)
