"""Runs of a study in processes of their own, each with its share of the threads.

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
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from seattn._ablation_progress import Watch
from seattn.experiments.study.runs import StudyRun
from seattn.experiments.study.workers import Ended, How, train_run

_logger = logging.getLogger("seattn")


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
