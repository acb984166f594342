"""The numbers of an epoch: its speed, TensorBoard events and Weights & Biases.

The speed shows whether a run is limited by its data path or by its computation. A GPU computes while the host prepares
the next batch: the time of waiting for data is then the time that the host needs for a batch.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe
from seattn.training.update import Batch

_logger = logging.getLogger("seattn")


def check_log(recipe: Recipe) -> None:
    """Raise UserError if the recipe asks for Weights & Biases and `wandb` is not installed."""
    if recipe.log_wandb and find_spec("wandb") is None:
        raise UserError("log_wandb: true needs the package wandb: pip install 'seattn[logs]'")


class EpochLog:
    """Writes each epoch's row for TensorBoard, if that package is installed, and for Weights & Biases, if asked to."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self._events, self._wandb = _summary_writer(path), _wandb_run(path, recipe)

    def write(self, row: Mapping[str, float]) -> None:
        """Write one epoch's numbers."""
        epoch = int(row["epoch"])
        numbers = {key: value for key, value in row.items() if key != "epoch"}
        if self._events is not None:
            for key, value in numbers.items():
                self._events.add_scalar(key, value, epoch)
            self._events.flush()
        if self._wandb is not None:
            self._wandb.log(numbers, step=epoch)

    def close(self) -> None:
        """Close the files and end the run of Weights & Biases."""
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


class Clock:
    """Yields batches in groups; counts images, the seconds since the start, and the seconds of waiting for data."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches, self._started = batches, time.perf_counter()
        self._images, self._waited = 0, 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def rates(self, world: int) -> dict[str, float]:
        """The rates until now, of `world` processes with equal parts, by the columns of summary.csv."""
        images, seconds = self._images * world, self.seconds
        return {
            "images_per_second": images / seconds,
            "data_images_per_second": images * world / max(self._waited, 1e-9),
            "train_seconds": seconds,
        }

    def groups(self, size: int) -> Iterator[list[Batch]]:
        """Groups of `size` batches; the last group may have fewer."""
        while True:
            asked = time.perf_counter()
            group = list(islice(self._batches, size))
            self._waited += time.perf_counter() - asked
            if not group:
                return
            self._images += sum(len(x) for x, _ in group)
            yield group


def describe_rates(rates: Mapping[str, float]) -> str:
    """The number of images trained in a second, and the number that the data path alone would yield."""
    return f"{rates['images_per_second']:.0f} images/s (data alone {rates['data_images_per_second']:.0f})"
