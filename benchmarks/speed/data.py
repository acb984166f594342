"""Images per second of each data path alone: `python -m benchmarks.speed.data`, or `make bench-data`.

Appends a row for each case to benchmarks/results/data-<device>.csv. The small images are those of --data-dir/train, or
the sample that ships with the package, repeated. The large images are that sample, enlarged and saved as JPEG, unless
--jpeg-dir names a folder of photographs. The cases in memory run in turns, so the state of the machine affects all
of them equally. A training step that computes faster than its data path waits for its images.
"""

import itertools
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks._command import Parser, command
from benchmarks.evidence.rows import RESULTS
from benchmarks.speed.rows import PREFIX, DataRow, device_slug
from benchmarks.speed.timing import cpu_clock, interleave, spread
from seattn.core.errors import UserError
from seattn.core.files import require_writable
from seattn.core.recipe import parse_recipe
from seattn.core.records import append_rows
from seattn.core.rows import Conditions, conditions
from seattn.data.folders.files import list_files
from seattn.data.folders.splits import find_split
from seattn.data.images import ImageSet, decode
from seattn.data.loader import FolderTrain
from seattn.data.memory import MemoryTrain, TrainSplit
from seattn.data.samples import load_sample

BATCH = 128
SMALL, LARGE = 32, 160
WARM_UP = 12  # batches; at the start the queues of two workers hold four
STRETCH = {"memory": 32, "folder": 8}  # batches
IMAGES, QUICK_IMAGES = 4000, 250  # of the enlarged sample; an epoch must be long compared with its start
_CFG = {"interpolation": "bicubic", "crop_pct": 1.0, "mean": (0.49, 0.48, 0.45), "std": (0.25, 0.24, 0.26)}


@dataclass(frozen=True)
class DataCase:
    """A data path and its augmentations: `keys` of a recipe, and those under its key `seattn`."""

    name: str
    path: str
    large: bool = False
    workers: int = 0
    keys: Mapping[str, Any] = field(default_factory=dict)
    seattn: Mapping[str, Any] = field(default_factory=dict)


_CROP = {"crop_padding": 4}
CASES = (
    DataCase("crop, flip", "memory", seattn=_CROP),
    DataCase("crop, flip, cutout 8", "memory", seattn={**_CROP, "cutout": 8}),
    DataCase("crop, flip, random erasing", "memory", keys={"reprob": 0.25}, seattn=_CROP),
    DataCase("resized crop, flip", "memory"),
    DataCase("crop, flip, jitter 0.4", "memory", keys={"color_jitter": 0.4}, seattn=_CROP),
    DataCase("crop, flip, AutoAugment", "memory", seattn={**_CROP, "policy": "cifar10"}),
    DataCase("crop, flip, TrivialAugment", "memory", seattn={**_CROP, "policy": "trivial"}),
    *(DataCase("crop, flip", "folder", workers=workers, seattn=_CROP) for workers in (0, 2)),
    *(DataCase("resized crop, flip", "folder", large=True, workers=workers) for workers in (0, 2)),
)


@command("bench_data")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--data-dir", type=Path, help="an image folder of 32 x 32 images, for example CIFAR-10")
    parser.add_argument("--jpeg-dir", type=Path, help="an image folder of larger photographs")
    parser.add_argument("--stretches", type=int, default=11, help="timed stretches a case (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two short stretches, to check that every case runs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the CSV file to append the rows to")
    args = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = conditions(device)
    out = args.out or (None if args.quick else RESULTS / f"{PREFIX}{device_slug(device, where)}.csv")
    if out is not None:
        require_writable(out.parent)
        append_rows(DataRow, out, [])
    in_turns = [[case for case in CASES if case.path == "memory"]]
    with tempfile.TemporaryDirectory() as scratch:
        count = QUICK_IMAGES if args.quick else IMAGES
        small = args.data_dir or _sample_folder(Path(scratch) / "png", SMALL, ".png", count)
        large = args.jpeg_dir or _sample_folder(Path(scratch) / "jpeg", LARGE, ".jpg", count)
        decoded = decode(list_files(find_split(small, "train")), (SMALL, SMALL))  # once, for all cases in memory
        for cases in (*in_turns, *([case] for case in CASES if case.path == "folder")):
            works = {}
            for case in cases:
                split = _open(case, large if case.large else small, decoded, device)
                works[case.name] = _Stretch(split, 1 if args.quick else STRETCH[case.path], device)
                works[case.name].skip(WARM_UP)
            times = interleave(works, cpu_clock, rounds=2 if args.quick else args.stretches, seconds=0, warm_up=1)
            for case in cases:
                source = _source(large if case.large else small)
                row = _row(case, source, works[case.name].batches, times[case.name], where)
                print(
                    f"{row.path}, {row.workers} workers, {row.source}: {row.case}: {row.median:.0f} images/s "
                    f"({row.p20:.0f} to {row.p80:.0f})"
                )
                if out is not None:
                    append_rows(DataRow, out, [row])
    return 0


def _sample_folder(root: Path, side: int, suffix: str, count: int) -> Path:
    """An image folder with `count` images of the packaged sample, enlarged to that side."""
    sample = load_sample("cifar10")
    for i in range(count):
        index = i % len(sample.images)
        folder = root / "train" / sample.class_names[sample.labels[index]]
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(sample.images[index])
        if side != picture.width:
            picture = picture.resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i}{suffix}")
    return root


def _source(data_dir: Path) -> str:
    with Image.open(list_files(find_split(data_dir, "train")).paths[0]) as image:
        return f"{image.format} {image.width}x{image.height}"


def _open(case: DataCase, data_dir: Path, decoded: ImageSet, device: torch.device) -> TrainSplit:
    side = LARGE if case.large else SMALL
    plain = {"model": "none", "lr": 0.1, "batch_size": BATCH, "workers": case.workers, "color_jitter": 0.0}
    recipe = parse_recipe({**plain, **case.keys, "seattn": dict(case.seattn)})
    cfg = {**_CFG, "input_size": (3, side, side)}
    split: TrainSplit
    if case.path == "memory":
        split = MemoryTrain(decoded, recipe, cfg, device)
    else:
        split = FolderTrain(list_files(find_split(data_dir, "train")), recipe, cfg, device)
    if not split.batches():
        raise UserError(f"{data_dir} has {len(split)} images to train on; a batch needs {BATCH}")
    return split


class _Stretch:
    """A call takes the next `batches` batches, epoch after epoch."""

    def __init__(self, split: TrainSplit, batches: int, device: torch.device) -> None:
        self.batches, self.device = batches, device
        self._stream = (batch for epoch in itertools.count() for batch in split.epoch(epoch))

    def skip(self, batches: int) -> None:
        """Take the next batches and wait until the device has them."""
        for _ in range(batches):
            next(self._stream)
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def __call__(self) -> None:
        self.skip(self.batches)


def _row(case: DataCase, source: str, batches: int, seconds: Sequence[float], where: Conditions) -> DataRow:
    rates = spread([batches * BATCH / time for time in seconds])
    return DataRow(
        path=case.path,
        case=case.name,
        source=source,
        size=LARGE if case.large else SMALL,
        batch_size=BATCH,
        workers=case.workers,
        n=len(seconds),
        batches=batches,
        median=rates.median,
        p20=rates.p20,
        p80=rates.p80,
        conditions=where,
    )


if __name__ == "__main__":
    sys.exit(main())
