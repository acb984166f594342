"""From image files to class probabilities: read, resize as the model was trained, forward, top k; what the net saw.

Shapes: B images of a batch, N of all, K classes, C channels, H x W pixels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from seattn.core.errors import UserError
from seattn.core.files import printable
from seattn.data.images import read_image
from seattn.data.transforms import class_names, data_config, eval_transform, image_mode


@dataclass(frozen=True)
class Prediction:
    """The k most probable classes of one image, most probable first; probabilities between 0 and 1."""

    image: str
    labels: tuple[str, ...]
    indices: tuple[int, ...]
    probabilities: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        rows = zip(self.labels, self.indices, self.probabilities, strict=True)
        return {"image": self.image, "predictions": [{"label": a, "index": i, "probability": p} for a, i, p in rows]}


def predict(
    model: nn.Module, paths: Sequence[str | Path], topk: int = 5, *, batch_size: int = 64, exif: bool = True
) -> list[Prediction]:
    """Classify image files of any size; at most K classes are given for each.

    Raises:
        UserError: if a file is missing or no image (before anything is computed), or the model takes other
            than 1, 3 or 4 channels.
    """
    if topk < 1:
        raise UserError(f"topk must be at least 1, got {topk}")
    mode, transform = image_mode(model), eval_transform(model)
    inputs = [transform(read_image(Path(path), mode, exif=exif)) for path in paths]  # N of (C, H, W)
    batches = (torch.stack(inputs[i : i + batch_size]) for i in range(0, len(inputs), batch_size))
    probabilities = predict_logits(model, batches).softmax(1)  # (N, K)
    names = class_names(model)
    top = probabilities.topk(min(topk, probabilities.shape[1]))  # (N, k)
    return [
        Prediction(printable(path), tuple(names[i] for i in indices), tuple(indices), tuple(values))
        for path, indices, values in zip(paths, top.indices.tolist(), top.values.tolist(), strict=True)
    ]


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    batches: Iterable[torch.Tensor],
    *,
    device: str | torch.device | None = None,
    channels_last: bool = False,
    bf16: bool = False,
) -> torch.Tensor:
    """Logits (N, K), float32 on the CPU, of batches (B, C, H, W); the model's train or eval mode is restored.

    Args:
        device: where to compute; None is where the model's parameters are. The model is moved there.
        bf16: run under bfloat16 autocast.
    """
    target = next(model.parameters()).device if device is None else torch.device(device)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    training = model.training
    model.eval().to(target)
    found = [torch.empty(0, len(class_names(model)))]
    try:
        for batch in batches:
            images = batch.to(target, memory_format=memory_format)
            with torch.autocast(target.type, torch.bfloat16, enabled=bf16):
                found.append(model(images).float().cpu())  # (B, K)
    finally:
        model.train(training)
    return torch.cat(found)


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
    config = data_config(model)
    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    seen = (x * std + mean).clamp(0, 1)[:, :3]
    if side is not None and seen.shape[-1] > side:
        seen = nn.functional.interpolate(seen, size=(side, side), mode="bilinear", antialias=True)
    shown: npt.NDArray[np.uint8] = (seen.expand(-1, 3, -1, -1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return shown
