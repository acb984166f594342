"""Attention into a net that has none, without losing what it knows, and out again."""

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
    """Give every residual block of `model` an attention layer; all weights and buffers stay as they are.

    For ResNet, ResNeXt, WRN, pre-activation ResNet, RegNetX and MobileNetV2 of timm and torchvision, and the plain nets
    of this package. The class of the model stays; a block's becomes a subclass, except for timm's ResNets at the
    standard place, whose blocks have the attribute `se` for it. Elsewhere the layer is `se` too, or `attn` in families
    that have their own SE inside the branch (RegNet, MobileNet).

    To save: the state dict, and these arguments. To load: the same call on the same net, then `load_state_dict`.

    Args:
        model: a timm or torchvision model, pretrained or not, in training or eval mode.
        layer: registered name: "se", "eca", "cbam", or one of your own.
        stages: numbers of the stages that get it, the first is 1; None for all.
        placement: "standard", "pre", "post" or "identity": where in the block (SENet, section 6.5).
        start: "identity": every gate is exactly 1 and can learn, so that the model computes what it computed; the gate
            is 2 * sigmoid then. "paper": the layers' usual start, under which it has to be trained again.
        num_classes: replace the classifier by one with so many outputs.
        inplace: change `model` itself instead of a copy.
        options: the layer's: rd_ratio (one number or one a stage), rd_divisor, gate, kernel_size ...

    Returns:
        The model with attention.

    Raises:
        ValueError: for a wrong name or number, a model without known residual blocks or with attention already.
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
    """Take all attention layers of this package out of the residual blocks; the trunk's weights stay.

    Undoes `add_attention`, and makes the plain net of one of this package's nets with attention.

    Raises:
        ValueError: if there are none.
    """
    model = model if inplace else copy.deepcopy(model)
    if not extract_attention(model):
        raise ValueError(f"{type(model).__name__} has no attention layer of seattn in a residual block")
    return model


def _classifier(model: nn.Module) -> tuple[nn.Module, str] | None:
    """Where a torchvision model keeps its last Linear: its parent and its name; None for timm's `reset_classifier`."""
    if hasattr(model, "reset_classifier"):
        return None
    for parent, name in ((model, "fc"), (getattr(model, "classifier", None), "1")):
        if parent is not None and isinstance(getattr(parent, name, None), nn.Linear):
            return parent, name
    raise ValueError(f"{type(model).__name__} has no classifier that num_classes could replace; leave num_classes away")


def _replace_classifier(model: Any, num_classes: int) -> None:
    found = _classifier(model)
    if found is None:
        model.reset_classifier(num_classes)
        return
    parent, name = found
    old = getattr(parent, name)
    new = nn.Linear(old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype)
    setattr(parent, name, new.train(old.training))
