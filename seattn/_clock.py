"""How fast an epoch goes, and whether data or computing sets the pace.

On a GPU work is queued: what is waited for there is the host's part of the data.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from seattn.training.update import Batch


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
