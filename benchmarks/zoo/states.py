"""How far the run of each entry is, from the files in its folder, and the table of `make zoo-status`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import timm
from rich.table import Column, Table
from rich.text import Text

from benchmarks.evidence.rows import read_run
from benchmarks.zoo.entries import Entry
from seattn.core.errors import UserError
from seattn.core.files import is_locked
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.records import read_text
from seattn.core.rows import AccuracyRow
from seattn.training.build import side_at
from seattn.training.run_dir import read_summary


@dataclass(frozen=True)
class State:
    """The state of a run; accuracies are in per cent.

    Args:
        word: waiting, running, stopped, finished, failed, or damaged: a file of the run cannot be read.
    """

    word: str
    epochs: int = 0
    planned: int = 0
    images_per_second: float | None = None
    held_out: float | None = None
    seconds_left: float | None = None
    test: float | None = None
    reason: str = ""


def beside(folder: Path, suffix: str) -> Path:
    """The file beside a run's folder, called like the folder with the suffix added."""
    return folder.with_name(folder.name + suffix)


def look(entry: Entry, out: Path) -> State:
    """The state of an entry's run; a run with a row on record is finished, wherever it was trained."""
    folder = out / entry.name
    row = entry.on_record  # of the weights as they ship; the run's own is of its weights in full precision
    try:
        if row is None and (folder / "result.json").exists():
            row = read_run(folder)
        return _in_folder(entry, folder) if row is None else _of_row(row)
    except UserError as error:  # a damaged file of one run does not hide the others
        return State("damaged", reason=str(error))


def _of_row(row: AccuracyRow) -> State:
    held_out = None if row.held_out_top1 is None else 100 * row.held_out_top1
    rate = row.epochs * row.train_images / row.train_seconds
    return State("finished", row.epochs, row.epochs, rate, held_out, 0.0, 100 * row.top1)


def _in_folder(entry: Entry, folder: Path) -> State:
    running = is_locked(folder)
    history = read_summary(folder)
    failure = beside(folder, ".failed")
    reason = "" if running or not failure.exists() else read_text(failure).strip()
    word = "running" if running else "failed" if reason else "stopped" if history else "waiting"
    recipe = _recipe(entry, folder)
    if not history:
        return State(word, 0, recipe.run_epochs, reason=reason)
    last = history[-1]
    for column in ("images_per_second", "train_seconds"):
        if not 0 < last.get(column, math.nan) < math.inf:
            raise UserError(f"{folder / 'summary.csv'} is damaged: {column} of its last line should be above 0")
    held_out = last.get("eval_top1", math.nan)
    held = None if math.isnan(held_out) else held_out
    left = seconds_left(recipe, history)
    return State(word, len(history), recipe.run_epochs, last["images_per_second"], held, left, reason=reason)


def _recipe(entry: Entry, folder: Path) -> Recipe:
    """The recipe that the run follows, which may be that of an earlier commit; before its start, the entry's."""
    try:
        return load_recipe(folder / "recipe.yaml")
    except UserError:  # there is none yet, or this version of the code does not know all of its keys
        return entry.resolved


def seconds_left(recipe: Recipe, history: Sequence[Mapping[str, float]]) -> float:
    """The time of the epochs that are left; an epoch's time is taken to grow with the pixels of its images.

    Args:
        history: the finished epochs, with `train_seconds`.
    """
    cfg = timm.get_pretrained_cfg(recipe.model)
    assert cfg is not None  # `check_recipe` refuses names of no net
    full = cfg.input_size[-1]
    sides = [side_at(epoch, recipe.seattn.resize) or full for epoch in range(recipe.run_epochs)]
    done = min(len(history), len(sides))
    return history[-1]["train_seconds"] * sum(side**2 for side in sides[done:]) / sides[done - 1] ** 2


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
        missed = entry.floor is not None and state.test is not None and state.test < entry.floor
        table.add_row(
            entry.name,
            Text(state.word + (f": {state.reason}" if state.reason else "")),
            f"{state.epochs}/{state.planned}",
            _number(state.images_per_second, 0),
            _number(state.held_out, 2),
            left,
            _number(state.test, 2) + (" (missed)" if missed else ""),
            _number(entry.floor, 1),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
