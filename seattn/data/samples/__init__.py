"""Images that ship with the package, so that a demo, an app and tests need no download; and examples of an app."""

import csv
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from seattn.core.errors import UserError
from seattn.data.folders.files import list_images
from seattn.data.images import read_image

MOST_EXAMPLES = 24
SIDE = 32  # pixels a side of one tile of the mosaic
# The images of `write_examples`: animals and an ice yacht; a car, lorry or aeroplane would show whose product it is.
_EXAMPLES = (
    "finch_s_000164",
    "domestic_cat_s_000360",
    "alces_alces_s_000236",
    "english_toy_spaniel_s_000685",
    "rana_catesbeiana_s_000167",
    "stallion_s_000711",
    "iceboat_s_000304",
)


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


def write_examples(folder: Path) -> list[Path]:
    """Write some images of the sample `cifar10`, to try a net with, into `folder`: one PNG for each, by its class.

    No image shows a trademark.
    """
    sample, paths = load_sample("cifar10"), []
    for name in _EXAMPLES:
        index = sample.names.index(name)
        paths.append(folder / f"{sample.class_names[sample.labels[index]]}.png")
        Image.fromarray(sample.images[index]).save(paths[-1])
    return paths


def example_files(folder: Path) -> list[Path]:
    """The images below `folder`, which an app shows as examples.

    Raises:
        UserError: if there is none, one cannot be read, or there are more than MOST_EXAMPLES.
    """
    paths = list_images(folder)
    if len(paths) > MOST_EXAMPLES:
        raise UserError(f"{folder} has {len(paths)} images; an app shows at most {MOST_EXAMPLES} examples")
    for path in paths:
        read_image(path)
    return paths
