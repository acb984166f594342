"""Images as a net sees them: resized and cropped by its transform, the normalisation taken back.

Shapes: B images of a batch, C channels, H x W pixels.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from torch import nn

from seattn.evaluation.prediction import eval_transform, image_mode

_BATCH = 64  # images at a time
_SIDE = 128  # pixels at most of an image on the page


def batches_as_seen(
    model: nn.Module, images: Iterable[Image.Image], pictures: list[npt.NDArray[np.uint8]]
) -> Iterator[torch.Tensor]:
    """Batches (B, C, H, W) for the model; what each image looks like then, at most _SIDE high, goes into `pictures`."""
    mode, transform, rest = image_mode(model), eval_transform(model), iter(images)
    while group := list(islice(rest, _BATCH)):
        x = torch.stack([transform(image.convert(mode)) for image in group])  # (B, C, H, W)
        pictures.extend(as_seen(model, x, side=_SIDE))
        yield x


def as_seen(model: nn.Module, x: torch.Tensor, *, side: int | None = None) -> npt.NDArray[np.uint8]:
    """Inputs x (B, C, H, W) as pictures (B, H, W, 3); `side`: pixels at most."""
    cfg: dict[str, Any] = resolve_model_data_config(model)
    mean, std = (torch.tensor(cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
    if x.shape[1] == 1:  # as eval_transform has it
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    seen = (x * std + mean).clamp(0, 1)
    if side is not None and seen.shape[-1] > side:
        seen = nn.functional.interpolate(seen, size=(side, side), mode="bilinear", antialias=True)
    shown: npt.NDArray[np.uint8] = (seen.expand(-1, 3, -1, -1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return shown
