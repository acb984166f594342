"""Rows of speed and rows of data rates: the columns of their files; each device has one file of either kind.

Rows of speed have one schema for operators, blocks and models. Rows that differ only in the implementation and the
numbers are one group: they were measured together, in turns, in one process.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from benchmarks.evidence.rows import ACCURACY, RESULTS
from seattn.core.rows import Conditions

OURS = "seattn"
# Other forms of ours, and what they add to a mode's name: each is compared in rows of its own, as seattn.
VARIANTS = {"seattn_folded": "folded", "seattn_compile": "compiled"}
PREFIX = "data-"  # of the names of files of data rates in benchmarks/results
DEPLOY_PREFIX = "deploy-"  # of those of exported nets
Group = tuple[str, str, str, str, str, str, bool]


@dataclass(frozen=True)
class DataRow:
    """The training images per second of one data path, without any training.

    Args:
        path: memory or folder.
        case: the augmentations, named as in recipes.
        source: format and size of the first file: "PNG 32x32".
        size: side of the images in the batches.
        workers: processes that read files beside the main process; 0 in memory.
        n: timed stretches of `batches` batches each, after untimed batches in which workers start and queues empty.
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


@dataclass(frozen=True)
class SpeedRow:
    """The time of one implementation of one case.

    Args:
        what: op, block or model.
        case: se_tail, bn_se_tail, ... of ops; se_basic, ... of blocks; the name of a net.
        mode: forward (without gradients; batch norm on the batch's statistics), forward_backward, training_step,
            training_step_parts (on a CPU: a training step beside the nets that are parts of it) or inference; with
            "_folded" where seattn is the net of accelerate(fold=True), and "_compiled" where it is under torch.compile.
        shape: sizes of the input, joined by "x".
        dtype: of the input; "autocast_bfloat16" for fp32 weights and inputs under autocast.
        memory_format: contiguous (NCHW) or channels_last, of every implementation but timm_channels_last.
        implementation: seattn; timm_eager, timm_compile; timm_channels_last (timm's in channels_last where the group is
            NCHW); plain and plain_timm_eager (the net without attention, with our tails and with timm's);
            convolutions (the net without attention, norms and activations).
        cuda_graph: whether each call was one replay of a CUDA graph.
        n: rounds; every implementation of the group ran once in each.
        median, p20, p80: seconds of a call, with the 20th and 80th percentile.
        ratio, ratio_p20, ratio_p80: this implementation's time over seattn's in the same round, median and percentiles:
            how many times faster seattn is. 1 in the row of seattn.
        bytes_moved: the fewest bytes that the case must read and write (its passes over the input's size); None for
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
        """The columns that all rows of a group share."""
        return (self.what, self.case, self.mode, self.shape, self.dtype, self.memory_format, self.cuda_graph)

    @property
    def input_bytes(self) -> int:
        """T, the bytes of the input."""
        itemsize = 2 if self.dtype == "bfloat16" else 4
        return prod(int(size) for size in self.shape.split("x")) * itemsize


def newest(rows: Sequence[SpeedRow]) -> list[SpeedRow]:
    """The last rows of each group: the rows of a later run replace those of an earlier run, a whole group at a time."""
    runs = {row.group: row.conditions for row in rows}
    last = {(row.group, row.implementation): row for row in rows if row.conditions == runs[row.group]}
    return list(last.values())


def device_slug(device: torch.device, where: Conditions) -> str:
    """The name of a device's file of rows: nvidia-h200 or cpu-amd-epyc-2t."""
    name = re.sub(r"[^a-z0-9]+", "-", where.hardware.lower()).strip("-")
    return name if device.type == "cuda" else f"cpu-{name}-{where.threads}t"


def speed_files(folder: Path = RESULTS) -> list[Path]:
    """The files of speed rows, one for each device, CPUs first."""
    others = (ACCURACY.name, PREFIX, DEPLOY_PREFIX)
    files = [path for path in folder.glob("*.csv") if not path.name.startswith(others)]
    return sorted(files, key=lambda path: (not is_cpu(path), path.name))


def is_cpu(path: Path) -> bool:
    """Whether the rows of that file were measured on a CPU."""
    return path.name.startswith("cpu-")
