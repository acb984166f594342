"""One process of a search: claims a trial, trains it, writes down how it ended, until there is none left."""

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from optuna.trial import TrialState

from seattn.core.errors import UserError, first_line
from seattn.core.recipe import Recipe
from seattn.experiments.search.space import Search
from seattn.experiments.search.trials import Claim, StudyDir, read_summary, short, tidy, write_tables
from seattn.training.driver import train
from seattn.training.run_dir import Row

FAILURES = 3  # in a row, after which more of them would tell nothing new
_logger = logging.getLogger("seattn")


@dataclass(frozen=True)
class Task:
    """What each process of a search is given; `deadline` in seconds of `time.time`."""

    search: Search
    data_dir: Path
    out: Path
    data: Mapping[str, str]
    trials: int
    device: str | None
    skip_bad: bool
    deadline: float | None

    def is_over(self) -> bool:
        """Whether the time is up, or the process that started this one is gone."""
        parent = multiprocessing.parent_process()
        late = self.deadline is not None and time.time() >= self.deadline
        return late or (parent is not None and not parent.is_alive())


class _OutOfTime(Exception):  # noqa: N818  # no error
    pass


class _Pruned(Exception):  # noqa: N818
    pass


def work(task: Task) -> None:
    """Run trials until as many have ended as are wanted, the grid is exhausted, or the time is up.

    Raises:
        UserError: if three trials in a row fail, or the disk is full.
    """
    study, failures = StudyDir(task.out, task.search, task.data), 0
    while (claim := study.claim(task.trials, task.is_over)) is not None:
        try:
            with _named(claim.trial.number):
                state, value, reason = _run(task, claim)
        except _OutOfTime:
            claim.owner.release()
            _logger.info("trial %d waits, to be gone on with by the same command", claim.trial.number)
            return
        study.end(claim, state, value, reason)
        with study.lock:
            tidy(task.out, study.trials())
            write_tables(task.out, task.search, study.trials())
        failures = failures + 1 if state == TrialState.FAIL else 0
        if failures == FAILURES:
            raise UserError(
                f"{FAILURES} trials in a row failed, trial {claim.trial.number} because {reason}; narrow the space, or "
                "put right what is wrong and run the same command again"
            )


def _run(task: Task, claim: Claim) -> tuple[TrialState, float | None, str | None]:
    """How the trial ended: its state, its held-out top-1 in percent if it is whole, the reason if it failed."""
    _logger.info("%s", ", ".join(f"{key} {short(value)}" for key, value in claim.params.items()))
    try:
        recipe = task.search.recipe_of(claim.params)
        top1 = _finished(claim.path)
        if top1 is None:
            top1 = _train(task, claim, recipe)
    except _Pruned:
        _logger.info("pruned: it stands below the trials before it")
        return TrialState.PRUNED, None, None
    except UserError as error:
        if isinstance(error.__cause__, OSError | RuntimeError):  # the disk, not the trial, which can go on later
            raise
        reason = str(error)
    except torch.OutOfMemoryError as error:
        reason = first_line(error)
    else:
        return TrialState.COMPLETE, 100 * top1, None
    _logger.warning("failed: %s", reason)
    return TrialState.FAIL, None, reason


def _train(task: Task, claim: Claim, recipe: Recipe) -> float:
    row = train(
        recipe,
        task.data_dir,
        claim.path,
        resume=True,
        device=task.device,
        skip_bad=task.skip_bad,
        read_test=False,
        on_epoch=_watcher(task, claim, recipe.run_epochs),
    )
    assert row is not None  # there is one process
    return row.top1


def _watcher(task: Task, claim: Claim, epochs: int) -> Callable[[Row], None]:
    """Tells the study each epoch's score, and ends the run where it is hopeless or the time is up."""
    reported = set(claim.reported)

    def report(epoch: int, score: float) -> None:
        if epoch + 1 not in reported:
            claim.trial.report(score, epoch + 1)
            reported.add(epoch + 1)

    for row in read_summary(claim.path):  # the last of a process that was killed before it could tell
        report(int(row["epoch"]), row["eval_top1"])

    def on_epoch(row: Row) -> None:
        report(int(row["epoch"]), row["eval_top1"])
        if int(row["epoch"]) + 1 < epochs and claim.trial.should_prune():  # the last one costs nothing any more
            raise _Pruned
        if task.is_over():
            raise _OutOfTime

    return on_epoch


def _finished(run: Path) -> float | None:
    """The score of a run that was killed between its last file and the study's entry."""
    path = run / "result.json"
    return float(json.loads(path.read_text(encoding="utf-8"))["top1"]) if path.exists() else None


@contextmanager
def _named(number: int) -> Iterator[None]:
    """All lines of the log say which trial they are of."""

    def name(record: logging.LogRecord) -> bool:
        record.msg = f"trial {number}: {record.msg}"
        return True

    _logger.addFilter(name)
    try:
        yield
    finally:
        _logger.removeFilter(name)


def run_jobs(task: Task, jobs: int) -> None:
    """`work` in so many processes at once, which share the cores.

    Raises:
        UserError: the first of theirs, or that one was killed; the others have ended then.
    """
    context = multiprocessing.get_context("spawn")  # a forked CUDA does not work
    errors = context.SimpleQueue()
    threads = max(1, torch.get_num_threads() // jobs)
    workers = [context.Process(target=_job, args=(task, threads, errors)) for _ in range(jobs)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
    if not errors.empty():
        raise UserError(errors.get())
    if codes := [worker.exitcode for worker in workers if worker.exitcode]:
        raise UserError(
            f"{len(codes)} of {jobs} processes ended with exit code {codes[0]} (-9: killed, as where memory is short); "
            "the same command goes on, with fewer --jobs"
        )


def _job(task: Task, threads: int, errors: "multiprocessing.SimpleQueue[str]") -> None:
    os.environ["TTY_COMPATIBLE"] = "0"  # no progress bars: many of them write over one another
    logging.basicConfig(format="%(message)s")
    _logger.setLevel(logging.INFO)
    torch.set_num_threads(threads)
    try:
        work(task)
    except UserError as error:
        errors.put(str(error))
    except KeyboardInterrupt:
        os._exit(130)  # the parent says it
