"""What a run says of each epoch: its progress, its speed, TensorBoard events and Weights & Biases.

The speed says whether data or computing sets the pace. On a GPU work is queued: what is waited for there is the host's
part of the data.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe
from seattn.training.update import Batch

_logger = logging.getLogger("seattn")


def check_log(recipe: Recipe) -> None:
    """Raise UserError if the recipe asks for Weights & Biases and `wandb` is not installed."""
    if recipe.log_wandb and find_spec("wandb") is None:
        raise UserError("log_wandb: true needs the package wandb: pip install 'seattn[logs]'")


class EpochLog:
    """Writes each epoch's row where tools look for it; events only if the package `tensorboard` is installed."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self._events, self._wandb = _summary_writer(path), _wandb_run(path, recipe)

    def write(self, row: Mapping[str, float]) -> None:
        """One epoch's numbers."""
        epoch = int(row["epoch"])
        numbers = {key: value for key, value in row.items() if key != "epoch"}
        if self._events is not None:
            for key, value in numbers.items():
                self._events.add_scalar(key, value, epoch)
            self._events.flush()
        if self._wandb is not None:
            self._wandb.log(numbers, step=epoch)

    def close(self) -> None:
        """Finish what is open."""
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()


def _summary_writer(path: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _logger.info("no TensorBoard events: the package tensorboard is not installed (pip install 'seattn[logs]')")
        return None
    return SummaryWriter(str(path / "events"))


def _wandb_run(path: Path, recipe: Recipe) -> Any:
    if not recipe.log_wandb:
        return None
    import wandb

    return wandb.init(project=recipe.wandb_project, name=path.name, dir=str(path), config=recipe.to_dict())


@dataclass(frozen=True)
class Rates:
    """Images a second: of the whole epoch, and of its data alone."""

    images: int
    seconds: float
    waited: float

    def __str__(self) -> str:
        row = self.row()
        return f"{row['images_per_second']:.0f} images/s (data alone {row['data_images_per_second']:.0f})"

    def row(self) -> dict[str, float]:
        """As columns of summary.csv."""
        return {
            "images_per_second": self.images / self.seconds,
            "data_images_per_second": self.images / max(self.waited, 1e-9),
            "train_seconds": self.seconds,
        }


class Clock:
    """Passes batches on, in groups, and counts images, the time since the start, and that spent waiting for data."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches, self._started = batches, time.perf_counter()
        self.images, self.waited = 0, 0.0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._started

    def rates(self, world: int) -> Rates:
        """So far, over `world` processes that work alike."""
        return Rates(self.images * world, self.seconds, self.waited / world)

    def groups(self, size: int) -> Iterator[list[Batch]]:
        """The batches, `size` at a time, the last group with what is left."""
        while True:
            asked = time.perf_counter()
            group = list(islice(self._batches, size))
            self.waited += time.perf_counter() - asked
            if not group:
                return
            self.images += sum(len(x) for x, _ in group)
            yield group


def epoch_progress(*, enabled: bool = True) -> Progress:
    """A bar with the task's field `state`; nothing in a log, which gets a line an epoch.

    Written to stderr.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        console=console,
        disable=not (enabled and console.is_terminal),
    )
