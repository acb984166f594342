"""Trains the runs of a study that are missing, several at once, each in a process of its own.

A run that another command trains waits. It is trained here if that command ends before the run is finished.
"""

import time
from collections.abc import Sequence

from seattn.experiments.study.progress import Progress
from seattn.experiments.study.runs import StudyRun
from seattn.experiments.training import Options, Training

POLL = 0.5  # seconds between two looks at the processes and at the runs that other commands train


def train_runs(runs: Sequence[StudyRun], options: Options, jobs: int, progress: Progress) -> dict[str, str]:
    """Train those of `runs` that are not finished, `jobs` at once.

    Returns:
        The reasons of the runs that failed, by the runs' titles.
    """
    queue = _Queue(runs, options, progress)
    try:
        while queue.waiting or queue.running:
            queue.collect()
            if not (len(queue.running) < jobs and queue.start()):
                time.sleep(POLL)
    finally:
        for _, training in queue.running:
            training.stop()
    return queue.failures


class _Queue:
    def __init__(self, runs: Sequence[StudyRun], options: Options, progress: Progress) -> None:
        self.waiting = list(runs)
        self.running: list[tuple[StudyRun, Training]] = []
        self.failures: dict[str, str] = {}
        self._options, self._progress = options, progress

    def start(self) -> bool:
        """Start the first run that no process trains, if there is one."""
        self.waiting = [run for run in self.waiting if not run.finished()]
        run = next((run for run in self.waiting if not run.is_locked()), None)
        if run is None:
            if self.waiting and not self.running:
                self._progress.wait_for(self.waiting)
            return False
        self.waiting.remove(run)
        self._progress.begin(run)
        training = Training(run.recipe, run.folder, self._options)
        training.new_epochs()  # those of earlier commands
        self.running.append((run, training))
        return True

    def collect(self) -> None:
        """Log the epochs that have ended, and remove the runs that have ended."""
        for run, training in list(self.running):
            ended = not training.is_running()  # read first: the rows below are then complete
            for row in training.new_epochs():
                self._progress.epoch(run, row)
            if ended:
                self.running.remove((run, training))
                self._end(run, training.failure())

    def _end(self, run: StudyRun, failure: str | None) -> None:
        if failure is None or run.finished():
            self._progress.finished(run)
        elif run.is_locked():  # another command was faster
            self.waiting.append(run)
        else:
            self.failures[run.title] = failure
            self._progress.failed(run, failure)
