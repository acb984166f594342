"""What a run says of each epoch beside summary.csv: TensorBoard events and Weights & Biases."""

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe

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
