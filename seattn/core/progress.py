"""A progress bar for work that takes longer than two seconds."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
DELAY = 2.0  # seconds before a bar appears


def progress_bar(
    items: Iterable[T], description: str, *, total: int | None = None, unit: str = "image", shown: bool = True
) -> Iterable[T]:
    """The items, with a progress bar on stderr after `DELAY` seconds where stderr is a terminal.

    Args:
        total: the number of items, where `len(items)` is not defined.
        shown: False shows no bar.
    """
    bar: Iterable[T] = tqdm(
        items,
        desc=description,
        total=total,
        unit=unit,
        delay=DELAY,
        disable=None if shown else True,  # None: no bar where stderr is not a terminal
        leave=False,
        dynamic_ncols=True,
    )
    return bar
