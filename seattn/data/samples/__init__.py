"""Images that ship with the package, so that a demo and tests need no download."""

import csv
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 32  # pixels a side of one tile of the mosaic


@dataclass(frozen=True, eq=False)
class Sample:
    """N labelled images: (N, 32, 32, 3) uint8 RGB, labels (N,) int64 indices into class_names, N original names."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    names: tuple[str, ...]


def load_sample(name: str) -> Sample:
    """The sample called `name`; `cifar10` is the only sample: 1,000 test images, 100 for each class.

    Raises:
        ValueError: for an unknown name.
    """
    if name != "cifar10":
        raise ValueError(f"unknown sample {name!r}; there is: cifar10")
    folder = files(__name__)
    rows = list(csv.DictReader((folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
    with (folder / f"{name}.webp").open("rb") as mosaic, Image.open(mosaic) as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    tiles = pixels.reshape(height, SIDE, width, SIDE, 3).transpose(0, 2, 1, 3, 4)  # (rows, columns, 32, 32, 3)
    images = np.ascontiguousarray(tiles.reshape(-1, SIDE, SIDE, 3)[: len(rows)])
    class_names = tuple(sorted({row["class"] for row in rows}))
    labels = np.array([class_names.index(row["class"]) for row in rows], dtype=np.int64)
    return Sample(images, labels, class_names, tuple(row["name"] for row in rows))
