"""Train the queue of the zoo's weights: `make zoo`, or `python -m benchmarks.zoo --data DIR --out DIR`.

zoo_configs/queue.yaml lists what to train, the most important entry first. A run is one process at the lowest priority
(--nice), with one thread or, for an entry with `cores`, with as many as are free at its start. The command can be
stopped, killed and started again at any time: a run continues after its last finished epoch, a run that is finished or
has a row in benchmarks/results is skipped, and a failed run is shown and tried again at the next start. Several
commands never train the same run: each training locks its run.

A run is trained by the code and the recipe of one commit, the one that was checked out at the run's start, in a git
worktree below OUT/code. Changes to this checkout therefore do not reach a run, and the run's row names the commit that
trained it. OUT/zoo.log gets a line every minute; `make zoo-status` prints a table.
"""

import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import IO

from rich.console import Console

from benchmarks._command import Parser, command
from benchmarks.zoo.entries import QUEUE, Entry, check_data, check_recipe, read_queue
from benchmarks.zoo.states import beside, look, status
from benchmarks.zoo.training import Training, check_committed, note_failure
from seattn.core.errors import UserError
from seattn.core.files import is_locked, require_writable

_POLL = 1.0  # seconds between two looks at the training processes
_PATIENCE = 5.0  # seconds until a locked run counts as another command's
_LOG_EVERY = 60.0  # seconds between two lines of OUT/zoo.log
_WIDTH = 116  # columns that the table of --status needs; a narrower terminal breaks its lines


def run_queue(entries: Sequence[Entry], data: Path, out: Path, jobs: int, nice: int = 19) -> list[str]:
    """Train the runs that are not finished, on `jobs` cores, in the order of the entries.

    Returns:
        The names of the runs that failed.
    """
    waiting, running, failed = list(entries), list[Training](), list[str]()
    logged = -math.inf
    with (out / "zoo.log").open("a", encoding="utf-8") as log, _stopped_by_signals():
        try:
            while waiting or running:
                for training in [training for training in running if not training.is_running()]:
                    running.remove(training)
                    logged = -math.inf
                    if training.note_failure():
                        failed.append(training.entry.name)
                while waiting and (free := jobs - sum(training.threads for training in running)):
                    entry = waiting.pop(0)
                    state = look(entry, out)
                    if state.word == "finished" or _is_trained_elsewhere(out / entry.name):
                        continue
                    logged = -math.inf
                    try:
                        if state.word == "damaged":
                            raise UserError(state.reason)
                        running.append(Training(entry, data, out, nice, min(entry.cores, free)))
                    except UserError as error:
                        note_failure(out / entry.name, str(error))
                        failed.append(entry.name)
                if time.monotonic() - logged >= _LOG_EVERY:
                    logged = time.monotonic()
                    _write_progress(log, running, waiting, failed, out)
                time.sleep(_POLL)
        finally:
            for training in running:
                training.stop()
    return failed


def _is_trained_elsewhere(folder: Path) -> bool:
    """Whether another command trains the run.

    It waits a moment first: a training whose command was killed needs time to end.
    """
    deadline = time.monotonic() + _PATIENCE
    while is_locked(folder) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return is_locked(folder)


def _write_progress(
    log: IO[str], running: Sequence[Training], waiting: Sequence[Entry], failed: Sequence[str], out: Path
) -> None:
    parts = []
    for training in running:
        state = look(training.entry, out)
        left = "" if state.seconds_left is None else f", {timedelta(seconds=round(state.seconds_left))} left"
        rate = "" if state.images_per_second is None else f", {state.images_per_second:.0f} images/s"
        parts.append(f"{training.entry.name} {state.epochs}/{state.planned}{rate}{left}")
    left_over = sum(look(entry, out).word != "finished" for entry in waiting)
    parts.append(f"{left_over} waiting")
    if failed:
        parts.append(f"failed: {', '.join(failed)}")
    line = f"{datetime.now().isoformat(' ', 'seconds')} {'; '.join(parts)}"
    print(line, file=log, flush=True)
    print(line, flush=True)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@command("zoo")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--queue", type=Path, default=QUEUE, help="the list of entries")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder that holds the entries' data folders")
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"), help="where runs and code are kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cores to train on; default: all")
    parser.add_argument(
        "--nice", type=int, default=19, help="priority of the trainings: 0 normal … 19 lowest (default)"
    )
    parser.add_argument("--status", action="store_true", help="print a table of all entries, train nothing")
    args = parser.parse_args(arguments)
    if args.jobs < 1:
        raise UserError(f"--jobs must be 1 or more, got {args.jobs}")
    if not 0 <= args.nice <= 19:
        raise UserError(f"--nice must be from 0 (normal priority) to 19 (lowest), got {args.nice}")
    entries = read_queue(args.queue)
    for entry in entries:
        check_recipe(entry)
    out = args.out.resolve()
    if args.status:
        Console(width=max(_WIDTH, Console().width)).print(status(entries, out))
        return 0
    for entry in entries:
        if look(entry, out).word != "finished":
            check_committed(entry, out)
            check_data(entry, args.data)
    require_writable(out)
    try:
        failed = run_queue(entries, args.data.resolve(), out, args.jobs, args.nice)
    except KeyboardInterrupt:
        print("zoo: stopped; the same command continues after the last finished epoch of each run", file=sys.stderr)
        return 130
    for name in failed:
        print(f"zoo: {name} failed: {beside(out / name, '.failed').read_text().strip()}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
