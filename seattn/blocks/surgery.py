"""Attention is added to a trained net that has none, without changing its outputs, and removed again."""

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn

from seattn.blocks.attended.insert import STARTS, Attention, extract_attention, insert_attention
from seattn.layers._registry import require_two_sigmoid

Model = TypeVar("Model", bound=nn.Module)


def add_attention(
    model: Model,
    layer: str,
    *,
    stages: Sequence[int] | None = None,
    placement: str = "standard",
    start: str = "identity",
    num_classes: int | None = None,
    inplace: bool = False,
    **options: Any,
) -> Model:
    """Return a copy of `model` with an attention layer in every residual block (`inplace=True`: `model` itself).

    All weights and buffers stay. This works for ResNet, ResNeXt, WRN, pre-activation ResNet, RegNetX and MobileNetV2 of
    timm and torchvision, and for the plain nets of this package. The layer is the attribute `se` of its block, or
    `attn` in families with an SE inside the branch (RegNet, MobileNet). The class of the model stays; the class of a
    block becomes a subclass, except in timm's ResNets at the standard place.

    To save the model, save its state dict and these arguments. To load it, repeat the call and use `load_state_dict`.

    Args:
        model: a timm or torchvision model, pretrained or not, in training or eval mode.
        layer: a registered name: "se", "eca", "cbam", or the name of your own layer.
        stages: numbers of the stages that get attention, from 1; None for all.
        placement: "standard", "pre", "post" or "identity": where in the block (SENet, section 6.5).
        start: "identity": every gate is exactly 1 and can learn, and the outputs of the model stay; the gate is
            2 * sigmoid. "paper": the layers' usual initialisation, after which the model has to be trained again.
        num_classes: replace the classifier by a new one with this number of outputs.
        inplace: change `model` itself instead of a copy.
        options: of the layer: rd_ratio (one number, or one for each stage), rd_divisor, gate, kernel_size ...

    Returns:
        The model with attention.

    Raises:
        ValueError: for a wrong name or number, for start="identity" with another gate than "two_sigmoid", or if the
            model has no known residual blocks, or has attention already.
        TypeError: for an option that the layer does not take.
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}; got {start!r}")
    if start == "identity":
        require_two_sigmoid(options.setdefault("gate", "two_sigmoid"))
    if num_classes is not None:
        _classifier(model)
    model = model if inplace else copy.deepcopy(model)
    rd_ratio = options.pop("rd_ratio", None)
    insert_attention(model, Attention(layer, placement, stages, rd_ratio, options, start))
    if num_classes is not None:
        _replace_classifier(model, num_classes)
    return model


def remove_attention(model: Model, *, inplace: bool = False) -> Model:
    """Return a copy of `model` without the attention layers of this package (`inplace=True`: `model` itself).

    The trunk's weights stay. This undoes `add_attention`, and turns a net of this package into its plain net.

    Raises:
        ValueError: if the model has no such layers.
    """
    model = model if inplace else copy.deepcopy(model)
    if not extract_attention(model):
        raise ValueError(f"{type(model).__name__} has no attention layer of seattn in a residual block")
    return model


def _classifier(model: nn.Module) -> tuple[nn.Module, str] | None:
    """The parent and the name of a torchvision model's last Linear; None for a model with `reset_classifier`."""
    if hasattr(model, "reset_classifier"):
        return None
    for parent, name in ((model, "fc"), (getattr(model, "classifier", None), "1")):
        if parent is not None and isinstance(getattr(parent, name, None), nn.Linear):
            return parent, name
    raise ValueError(f"{type(model).__name__} has no classifier that num_classes could replace; omit num_classes")


def _replace_classifier(model: Any, num_classes: int) -> None:
    place = _classifier(model)
    if place is None:
        model.reset_classifier(num_classes)
        return
    parent, name = place
    old = getattr(parent, name)
    new = nn.Linear(old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype)
    setattr(parent, name, new.train(old.training))
