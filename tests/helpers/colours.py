"""Images that a net learns in a few steps: noise in which one colour channel is brighter."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

# What learns them, in the classes red, green and blue; tests change keys of it.
RECIPE = {
    "model": "resnet20_cifar",
    "num_classes": 3,
    "lr": 0.05,
    "batch_size": 8,
    "epochs": 2,
    "warmup_epochs": 0,
    "sched_on_updates": True,
    "smoothing": 0.0,
}


def write_colours(root: Path, channels: Mapping[str, int], counts: Mapping[str, Sequence[int]]) -> Path:
    """`root`/<split>/<class>/<number>.png of 32 x 32.

    Args:
        channels: of each class the channel that is brighter.
        counts: of each split the images of each class.
    """
    rng = np.random.default_rng(0)
    for split, of_each in counts.items():
        for (name, channel), count in zip(channels.items(), of_each, strict=True):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(160, size=(32, 32, 3), dtype=np.uint8)
                pixels[:, :, channel] += 80
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root
