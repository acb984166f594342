"""From image files to class probabilities: read, resize as the model was trained, forward, top k.

Shapes: B images of a batch, N of all, K classes, C channels, H x W pixels.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import nn

from seattn.core.errors import UserError

ImageTransform = Callable[[Image.Image], torch.Tensor]


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


def predict(model: nn.Module, paths: Sequence[str | Path], topk: int = 5, *, batch_size: int = 64) -> list[Prediction]:
    """Classify image files of any size; at most K classes are given for each.

    Raises:
        UserError: if a file is missing or no image (before anything is computed), or the model takes neither 1 nor 3
            channels.
    """
    if topk < 1:
        raise UserError(f"topk must be at least 1, got {topk}")
    mode, transform = image_mode(model), eval_transform(model)
    inputs = [transform(read_image(Path(path), mode)) for path in paths]  # N of (C, H, W)
    batches = (torch.stack(inputs[i : i + batch_size]) for i in range(0, len(inputs), batch_size))
    probabilities = predict_logits(model, batches).softmax(1)  # (N, K)
    names = class_names(model)
    top = probabilities.topk(min(topk, probabilities.shape[1]))  # (N, k)
    return [
        Prediction(str(path), tuple(names[i] for i in indices), tuple(indices), tuple(values))
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


def read_image(path: Path, mode: str) -> Image.Image:
    """The image in `path`, decoded and converted to PIL's `mode`.

    Raises:
        UserError: naming the file, if it is missing or cannot be decoded.
    """
    if not path.is_file():
        raise UserError(f"no such image file: {path}")
    try:
        with Image.open(path) as image:
            converted: Image.Image = image.convert(mode)
            return converted
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from error


def image_mode(model: nn.Module) -> str:
    """PIL's mode of the images that `model` takes: L for one channel, RGB for three.

    Raises:
        UserError: for any other number of channels.
    """
    channels = _input_channels(model)
    modes = {1: "L", 3: "RGB"}
    if channels not in modes:
        raise UserError(f"the model takes {channels} channels; image files give 1 (grey) or 3 (RGB)")
    return modes[channels]


def eval_transform(model: nn.Module) -> ImageTransform:
    """timm's evaluation transform for `model`: a PIL image of any size to a normalised (C, H, W) tensor."""
    config: dict[str, Any] = resolve_model_data_config(model)
    channels = _input_channels(model)
    config["input_size"] = (channels, *config["input_size"][1:])
    for key in ("mean", "std"):
        if len(config[key]) != channels:
            # One grey channel under RGB statistics: without this, Normalize broadcasts it back to three.
            config[key] = (sum(config[key]) / len(config[key]),) * channels
    transform: ImageTransform = create_transform(**config)
    return transform


def class_names(model: nn.Module) -> tuple[str, ...]:
    """What the model's K outputs are called: its label_names, or class 0, class 1 ... where it carries none."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    names = tuple(cfg.get("label_names") or ())
    count = int(getattr(model, "num_classes", len(names)))
    return names if len(names) == count else tuple(f"class {i}" for i in range(count))


def _input_channels(model: nn.Module) -> int:
    cfg = getattr(model, "pretrained_cfg", None) or {}
    return int(getattr(model, "in_chans", cfg.get("input_size", (3,))[0]))
