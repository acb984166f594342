"""What an image goes through before a net: timm's transforms, for training by the recipe and for evaluation.

Shapes: C channels, H x W pixels.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from timm.data.config import resolve_data_config, resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torchvision import transforms

from seattn.core.errors import UserError
from seattn.data.images import Size, squash
from seattn.data.policy import torchvision_policy

if TYPE_CHECKING:
    from seattn.core.recipe import Recipe


Transform = Callable[[Image.Image], Tensor]  # to (3, H, W) uint8


def train_transform(recipe: "Recipe", cfg: Mapping[str, Any], size: Size) -> Transform:
    """The recipe's transform of a training image to (3, *size) uint8.

    Args:
        cfg: of the model; a padded crop is to its input size, and is then resized to `size`.
    """
    crop, colours, to_tensor = create_transform(
        (3, *size),
        is_training=True,
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        vflip=recipe.vflip,
        color_jitter=recipe.color_jitter or 0.0,
        auto_augment=recipe.aa,
        interpolation=recipe.train_interpolation,
        mean=cfg["mean"],
        use_prefetcher=True,
        separate=True,
    )
    if recipe.seattn.crop_padding is not None:
        own: Size = tuple(cfg["input_size"][1:])
        border = {"black": "constant", "reflect": "reflect"}[recipe.seattn.crop_border]
        cut = transforms.RandomCrop(own, padding=recipe.seattn.crop_padding, padding_mode=border)
        padded = [cut, *crop.transforms[1:]]
        smaller = [] if size == own else [transforms.Resize(size, antialias=True)]
        crop = transforms.Compose([_Squash(own), *padded, *smaller])
    if recipe.seattn.policy:
        colours = torchvision_policy(recipe.seattn.policy)
    transform: Transform = transforms.Compose([crop, colours, to_tensor])
    return transform


def eval_transform_uint8(cfg: Mapping[str, Any]) -> Transform:
    """timm's evaluation transform of the model with that cfg, to (3, H, W) uint8."""
    transform: Transform = create_transform(**resolve_data_config(pretrained_cfg=dict(cfg)), use_prefetcher=True)
    return transform


class _Squash:
    """A class, for workers that are sent what they need."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        fitted: Image.Image = squash(self.size)(image)
        return fitted


ImageTransform = Callable[[Image.Image], torch.Tensor]


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
