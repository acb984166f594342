"""Train the queue of the zoo's weights: `make zoo`, or `python -m benchmarks.zoo --data DIR --out DIR`.

zoo_configs/queue.yaml lists what to train, the most important entry first. A run is one process at the lowest priority
(--nice), with one thread or, for an entry with `cores`, with as many as are free at its start. The command can be
stopped, killed and started again at any time: a run continues after its last finished epoch, a run that is finished or
has a row in benchmarks/results is skipped, and a failed run is shown and tried again at the next start. Several
commands never train the same run: each training locks its run.

A run is trained by the code of one commit, the one that was checked out at the run's start, in a git worktree below
OUT/code. Changes to this checkout therefore do not reach a run, and the run's row names the commit that trained it.
OUT/zoo.log gets a line every minute; `make zoo-status` prints a table.
"""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import IO

from rich.console import Console
from rich.table import Column, Table

from benchmarks._command import Parser, command
from benchmarks.evidence.rows import read_rows, read_run
from seattn.core.child import Child
from seattn.core.errors import UserError
from seattn.core.files import is_locked, write_text
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.recipe.keys import CountFromOne
from seattn.core.records import parse, read_yaml
from seattn.core.rows import AccuracyRow
from seattn.data.folders.classes import class_folders
from seattn.data.folders.splits import require_split
from seattn.models.listing import check_name
from seattn.training.run_dir import read_summary

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "zoo_configs"
_POLL = 1.0  # seconds between two looks at the training processes
_PATIENCE = 5.0  # seconds until a locked run counts as another command's
_LOG_EVERY = 60.0  # seconds between two lines of OUT/zoo.log
_WIDTH = 116  # columns that the table of --status needs; a narrower terminal breaks its lines


@dataclass(frozen=True)
class Entry:
    """One training of the queue.

    Args:
        recipe: a file of `zoo_configs/` without its suffix.
        data: the folder in --data that holds its images.
        holdout: the part of the train split to hold out; 0 trains on all images.
        floor: the test top-1, in per cent, from which the weights may be published; None: they are not published.
        cores: the most threads that the training may use. Runs side by side with one thread each train more images a
            second in total; a large net with all cores is finished first.
    """

    recipe: str
    seed: int
    data: str
    holdout: float
    floor: float | None
    cores: CountFromOne = 1

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"{self.recipe}-s{self.seed}" + ("" if self.holdout == 0 else f"-h{self.holdout:g}")

    def load(self) -> Recipe:
        """The recipe with this entry's seed and part held out."""
        return load_recipe(CONFIGS / f"{self.recipe}.yaml", {"seed": self.seed, "seattn.holdout": self.holdout})

    def row(self, out: Path) -> AccuracyRow | None:
        """The row of the finished run: of its folder in `out`, or the one that this project has on record."""
        if (out / self.name / "result.json").exists():
            return read_run(out / self.name)
        if self.load() != load_recipe(CONFIGS / f"{self.recipe}.yaml", {"seed": self.seed}):
            return None  # rows are of runs that hold out what their recipe says
        return next((row for row in read_rows() if (row.recipe, row.seed) == (self.recipe, self.seed)), None)


@dataclass(frozen=True)
class State:
    """The state of a run: `word` is waiting, running, stopped, finished or failed; accuracies are in per cent."""

    word: str
    epochs: int = 0
    planned: int = 0
    images_per_second: float | None = None
    held_out: float | None = None
    seconds_left: float | None = None
    test: float | None = None
    reason: str = ""


def read_queue(path: Path) -> tuple[Entry, ...]:
    """The entries of a queue file.

    Raises:
        UserError: naming the entry and the key that is unknown, missing or of the wrong type.
    """
    example = "entries: [{recipe: se_resnet18_cifar.cifar10.zoo, seed: 0, data: cifar10, holdout: 0, floor: 95}]"
    items = read_yaml(path, "queue", example).get("entries")
    if not isinstance(items, list) or not items:
        raise UserError(f"queue {path} must have a list of entries, for example {example!r}")
    entries = tuple(parse(Entry, item, f"{path}, entry {number}") for number, item in enumerate(items, 1))
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: the entry {name} occurs more than once; give each its own seed")
    return entries


def check(entry: Entry, data: Path) -> None:
    """Refuse an entry whose training would fail.

    Raises:
        UserError: if its recipe is missing or wrong, its images are not in `data`, or they have other classes.
    """
    try:
        recipe = entry.load()
        check_name(recipe.model)
    except UserError as error:
        raise UserError(f"queue entry {entry.name}: {error}") from error
    folder = data / entry.data
    for split in ("train", "test"):
        require_split(folder, split)
    if (folder / "train").is_dir():
        classes = len(class_folders(folder / "train"))
        if recipe.num_classes not in (None, classes):
            raise UserError(
                f"queue entry {entry.name}: {folder} has {classes} classes, the recipe has num_classes "
                f"{recipe.num_classes}"
            )


def look(entry: Entry, out: Path) -> State:
    """The state of an entry's run."""
    folder = out / entry.name
    planned = entry.load().run_epochs
    row = entry.row(out)
    if row is not None:
        held_out = None if row.held_out_top1 is None else 100 * row.held_out_top1
        rate = row.epochs * row.train_images / row.train_seconds
        return State("finished", row.epochs, planned, rate, held_out, 0.0, 100 * row.top1)
    running = is_locked(folder)
    history = read_summary(folder)
    failure = _beside(folder, ".failed")
    reason = "" if running or not failure.exists() else failure.read_text(encoding="utf-8").strip()
    word = "running" if running else "failed" if reason else "stopped" if history else "waiting"
    if not history:
        return State(word, 0, planned, reason=reason)
    last = history[-1]
    held = None if math.isnan(last["eval_top1"]) else last["eval_top1"]
    left = (planned - len(history)) * last["train_seconds"]
    return State(word, len(history), planned, last["images_per_second"], held, left, reason=reason)


def status(entries: Sequence[Entry], out: Path) -> Table:
    """A table of all entries."""
    table = Table(
        Column("entry", no_wrap=True),
        Column("state", overflow="fold"),
        "epoch",
        "images/s",
        "held-out %",
        "time left",
        "test %",
        "floor %",
    )
    for entry in entries:
        state = look(entry, out)
        left = "" if state.seconds_left is None else str(timedelta(seconds=round(state.seconds_left)))
        table.add_row(
            entry.name,
            state.word + (f": {state.reason}" if state.reason else ""),
            f"{state.epochs}/{state.planned}",
            _number(state.images_per_second, 0),
            _number(state.held_out, 2),
            left,
            _number(state.test, 2),
            _number(entry.floor, 1),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _beside(folder: Path, suffix: str) -> Path:
    """The file beside a run's folder, called like the folder with the suffix added."""
    return folder.with_name(folder.name + suffix)


class Training(Child):
    """A process that trains one run by the code of the run's own commit, at a low priority."""

    def __init__(self, entry: Entry, data: Path, out: Path, nice: int, threads: int) -> None:
        self.entry, self.folder, self.threads = entry, out / entry.name, threads
        _beside(self.folder, ".failed").unlink(missing_ok=True)
        code = code_for(self.folder, out)
        options = {
            "--data-dir": data / entry.data,
            "--out": self.folder,
            "--device": "cpu",
            "--seed": entry.seed,
            "--set": f"seattn.holdout={entry.holdout:g}",
        }
        arguments = ["train", str(code / "zoo_configs" / f"{entry.recipe}.yaml")]
        arguments += [str(part) for option in options.items() for part in option]
        if (self.folder / "last.pth.tar").exists():
            arguments.append("--resume")
        super().__init__(arguments, _beside(self.folder, ".log"), threads=threads, code=code, nice=nice)

    def note_failure(self) -> bool:
        """Whether the ended process failed; the reason is then in a file beside the run."""
        reason = self.failure()
        if reason is None or is_locked(self.folder):  # locked: another command started the run at the same moment
            return False
        write_text(_beside(self.folder, ".failed"), reason + "\n")
        return True


def code_for(folder: Path, out: Path) -> Path:
    """The worktree whose code trains the run in `folder`: at the commit of the run's start, for a new run at HEAD.

    Raises:
        UserError: if git cannot make the worktree.
    """
    note = _beside(folder, ".commit")
    if (folder / "last.pth.tar").exists() and note.exists():
        commit = note.read_text(encoding="utf-8").strip()
    else:
        commit = _git("rev-parse", "HEAD")
        write_text(note, commit + "\n")
    worktree = out / "code" / commit[:12]
    if not (worktree / "seattn").is_dir():
        _git("worktree", "prune")
        _git("worktree", "add", "--force", "--detach", str(worktree), commit)
    return worktree


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"git {arguments[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


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
                    if look(entry, out).word == "finished" or _is_trained_elsewhere(out / entry.name):
                        continue
                    running.append(Training(entry, data, out, nice, min(entry.cores, free)))
                    logged = -math.inf
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
    parts.append(f"{len(waiting)} waiting")
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
    parser.add_argument("--queue", type=Path, default=CONFIGS / "queue.yaml", help="the list of entries")
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
    out = args.out.resolve()
    if args.status:
        Console(width=max(_WIDTH, Console().width)).print(status(entries, out))
        return 0
    for entry in entries:
        check(entry, args.data)
    out.mkdir(parents=True, exist_ok=True)
    try:
        failed = run_queue(entries, args.data.resolve(), out, args.jobs, args.nice)
    except KeyboardInterrupt:
        print("zoo: stopped; the same command continues after the last finished epoch of each run", file=sys.stderr)
        return 130
    for name in failed:
        print(f"zoo: {name} failed: {_beside(out / name, '.failed').read_text().strip()}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
