"""Rows of speed: one schema for operators, blocks and models, one file a device.

Rows that agree in everything but the implementation and the numbers are one group: they were measured together, in
turns, in one process.

Rows of data rates: one schema, one file a device, apart from the rows of speed.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from benchmarks.evidence.rows import ACCURACY, RESULTS
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
    return records.read_rows(DataRow, path)


def append_data_rows(path: Path, rows: Iterable[DataRow]) -> None:
    """Append `rows` to `path`; UserError if it holds something else."""
    records.append_rows(DataRow, path, rows)


OURS = "seattn"
Group = tuple[str, str, str, str, str, str, bool]


@dataclass(frozen=True)
class SpeedRow:
    """How long one implementation of one case took.

    Args:
        what: op, block or model.
        case: what was run: se_tail, bn_se_tail, ...; se_basic, ...; the name of a net.
        mode: forward (no gradients wanted; batch norm in training), forward_backward, training_step,
            training_step_parts (a CPU's group of the nets beside a step) or inference.
        shape: of the input, sizes joined by "x".
        dtype: of the input, "autocast_bfloat16" for fp32 weights and inputs under autocast.
        memory_format: contiguous (NCHW) or channels_last, of every implementation but timm_channels_last.
        implementation: seattn; timm_eager, timm_compile; timm_channels_last (timm's in channels_last where the group is
            NCHW); plain and plain_timm_eager (the net without attention, with our tails and with timm's);
            convolutions (the net with neither attention nor norms and activations).
        cuda_graph: whether each call was one replay of a CUDA graph.
        n: rounds; in each, every implementation of the group ran once.
        median, p20, p80: seconds of a call, with the 20th and 80th percentile.
        ratio, ratio_p20, ratio_p80: this one's time over seattn's time in the same round, median and percentiles: how
            many times faster seattn is. Of seattn's own row, 1.
        bytes_moved: the fewest bytes that the case must read and write (its passes over the input's size), None for
            blocks and models.
        copy_percent: bytes_moved / median, in percent of copy_bandwidth.
        copy_bandwidth: bytes per second, read and written, of copying a large tensor in the same run.
    """

    what: str
    case: str
    mode: str
    shape: str
    dtype: str
    memory_format: str
    implementation: str
    cuda_graph: bool
    n: int
    median: float
    p20: float
    p80: float
    ratio: float
    ratio_p20: float
    ratio_p80: float
    bytes_moved: int | None
    copy_percent: float | None
    copy_bandwidth: float
    conditions: Conditions

    @property
    def group(self) -> Group:
        """What the rows of one group have in common."""
        return (self.what, self.case, self.mode, self.shape, self.dtype, self.memory_format, self.cuda_graph)

    @property
    def input_bytes(self) -> int:
        """T: bytes of the input."""
        itemsize = 2 if self.dtype == "bfloat16" else 4
        return prod(int(size) for size in self.shape.split("x")) * itemsize


def read_speed(path: Path) -> list[SpeedRow]:
    """All rows of `path`, oldest first; none if there is no such file."""
    return records.read_rows(SpeedRow, path)


def append_speed(path: Path, rows: Iterable[SpeedRow]) -> None:
    """Append `rows` to `path`; UserError if it holds something else."""
    records.append_rows(SpeedRow, path, rows)


def newest(rows: Sequence[SpeedRow]) -> list[SpeedRow]:
    """Of each group the rows that were written last: a run's rows replace an earlier run's, group by group."""
    runs = {row.group: row.conditions for row in rows}
    last = {(row.group, row.implementation): row for row in rows if row.conditions == runs[row.group]}
    return list(last.values())


def device_slug(device: torch.device, where: Conditions) -> str:
    """The name of a device's file of rows: "nvidia-h200", "cpu-amd-epyc-2t"."""
    name = re.sub(r"[^a-z0-9]+", "-", where.hardware.lower()).strip("-")
    return name if device.type == "cuda" else f"cpu-{name}-{where.threads}t"


def speed_files(folder: Path = RESULTS) -> list[Path]:
    """The files of speed rows, one a device, CPUs first."""
    files = [path for path in folder.glob("*.csv") if path.name != ACCURACY.name and not path.name.startswith(PREFIX)]
    return sorted(files, key=lambda path: (not is_cpu(path), path.name))


def is_cpu(path: Path) -> bool:
    """Whether the rows of that file were measured on a CPU."""
    return path.name.startswith("cpu-")
