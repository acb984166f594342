"""Rows of data rates: one schema, one file a device, apart from the rows of speed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from seattn.core import records
from seattn.core.rows import Conditions

PREFIX = "data-"  # of the files' names in benchmarks/results


@dataclass(frozen=True)
class DataRow:
    """How many training images per second one data path yields, with nothing else to do.

    Args:
        path: memory or folder.
        case: the augmentations, in a recipe's words.
        source: what the images are: "PNG 32x32", the format and the size of the first file.
        size: side of the batches.
        workers: processes that read files beside this one; 0 in memory.
        n: timed stretches of `batches` batches each, after untimed ones in which workers start and queues empty.
        median, p20, p80: images per second of a stretch, with the 20th and 80th percentile.
    """

    path: str
    case: str
    source: str
    size: int
    batch_size: int
    workers: int
    n: int
    batches: int
    median: float
    p20: float
    p80: float
    conditions: Conditions


def read_data_rows(path: Path) -> list[DataRow]:
    """All rows of `path`, oldest first; none if there is no such file."""
    return records.read(DataRow, path)


def append_data_rows(path: Path, rows: Iterable[DataRow]) -> None:
    """Append `rows` to `path`; UserError if it holds something else."""
    records.append(DataRow, path, rows)
