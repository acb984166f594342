"""The transforms of an image before a net: timm's, for training (by the recipe) and for evaluation.

Shapes: C channels, H x W pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image
from timm.data.config import resolve_data_config, resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torchvision import transforms

from seattn.core.errors import UserError
from seattn.data.images import MODES, Size, squash
from seattn.data.policy import torchvision_policy

if TYPE_CHECKING:
    from seattn.core.recipe import Recipe

Transform = Callable[[Image.Image], Tensor]  # to (C, H, W)
# The keys of timm's data config, which say how an image becomes an input of a net.
PREPROCESSING = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")


def data_config(model: nn.Module) -> dict[str, Any]:
    """timm's data config of `model` for the number of channels that it takes: input_size, crop, mean, std, …

    Statistics of three channels become their mean in each channel where the model takes one or four, as in timm.
    """
    config: dict[str, Any] = resolve_model_data_config(model)
    channels = int(getattr(model, "in_chans", config["input_size"][0]))
    config["input_size"] = (channels, *config["input_size"][1:])
    for key in ("mean", "std"):
        if len(config[key]) != channels:
            config[key] = (sum(config[key]) / len(config[key]),) * channels
    return config


def image_mode(model: nn.Module) -> str:
    """PIL's mode of the images that `model` takes: L, RGB or RGBA for one, three or four channels.

    Raises:
        UserError: for any other number of channels.
    """
    return channels_mode(data_config(model)["input_size"][0])


def channels_mode(channels: int) -> str:
    """PIL's mode of images of 1, 3 or 4 channels; raises `UserError` for another number."""
    if channels not in MODES:
        raise UserError(f"the model takes {channels} channels; image files give 1 (grey), 3 (RGB) or 4 (RGBA)")
    return MODES[channels]


def check_policy(aa: str) -> None:
    """Raise `UserError` for a value of the recipe's key `aa` that timm does not have."""
    try:
        create_transform(32, is_training=True, auto_augment=aa)
    except (AssertionError, ValueError) as error:
        examples = "rand-m9-mstd0.5, augmix-m5 or original"
        raise UserError(f"aa {aa!r} is not a policy of timm; give {examples}, for example") from error


def train_transform(recipe: "Recipe", config: Mapping[str, Any], size: Size) -> Transform:
    """The recipe's transform of a training image to (C, *size) uint8.

    Args:
        config: of the model; a padded crop has its input size, and is then resized to `size`.
    """
    crop, colours, to_tensor = create_transform(
        (config["input_size"][0], *size),
        is_training=True,
        scale=recipe.scale,
        ratio=recipe.ratio,
        hflip=recipe.hflip,
        vflip=recipe.vflip,
        color_jitter=recipe.color_jitter or 0.0,
        auto_augment=recipe.aa,
        interpolation=recipe.train_interpolation,
        mean=config["mean"],
        use_prefetcher=True,
        separate=True,
    )
    if recipe.seattn.crop_padding is not None:
        own: Size = tuple(config["input_size"][1:])
        border = {"black": "constant", "reflect": "reflect"}[recipe.seattn.crop_border]
        cut = transforms.RandomCrop(own, padding=recipe.seattn.crop_padding, padding_mode=border)
        smaller = [] if size == own else [transforms.Resize(size, antialias=True)]
        crop = transforms.Compose([_Squash(own), cut, *crop.transforms[1:], *smaller])
    if recipe.seattn.policy:
        colours = torchvision_policy(recipe.seattn.policy)
    transform: Transform = transforms.Compose([crop, colours, to_tensor])
    return transform


class _Squash:
    """A class, because worker processes that are spawned get a pickle of it."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        squashed: Image.Image = squash(self.size)(image)
        return squashed


def eval_transform_uint8(config: Mapping[str, Any]) -> Transform:
    """timm's evaluation transform to (C, H, W) uint8; the mean and std of `config` are applied on the device."""
    transform: Transform = create_transform(**resolve_data_config(pretrained_cfg=dict(config)), use_prefetcher=True)
    return transform


def eval_transform(model: nn.Module) -> Transform:
    """timm's evaluation transform for `model`: a PIL image of any size to a normalised (C, H, W) tensor."""
    transform: Transform = create_transform(**data_config(model))
    return transform


def class_names(model: nn.Module) -> tuple[str, ...]:
    """The names of the model's K outputs: its label_names, or class 0, class 1, … where it has none."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    labels = cfg.get("label_names") or ()
    count = int(getattr(model, "num_classes", len(labels)))
    return output_names(labels, count) or tuple(f"class {i}" for i in range(count))


def output_names(labels: Sequence[str] | Mapping[Any, str] | None, count: int) -> tuple[str, ...]:
    """The names of `count` outputs in `labels`; empty if these are not as many names.

    Args:
        labels: label_names of a pretrained cfg: in timm a sequence, or a mapping from the numbers of some outputs.
    """
    if isinstance(labels, Mapping):
        by_output = {str(key): name for key, name in labels.items()}
        if by_output.keys() <= set(map(str, range(count))):
            return tuple(by_output.get(str(i), f"class {i}") for i in range(count))
        labels = list(labels.values())  # by other keys, in the order of the outputs
    names = tuple(labels or ())
    return names if len(names) == count else ()
