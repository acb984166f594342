"""The widths of a pruned net: found by comparison with the full net, and applied to a new full net.

Shapes: B images, C channels, H x W pixels; O and I are the first two sizes of a weight.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Widths = Mapping[str, Sequence[int]]
_SIDE = 64  # of the images that show the channels of each level


def find_widths(model: nn.Module, full: nn.Module) -> dict[str, list[int]]:
    """The first two sizes of the weight (outputs, inputs) of each layer that has other sizes in `full`, by its name.

    The classifier is left out: its inputs follow from the other layers.

    Args:
        model: a net whose layers are those of `full`, with fewer channels.
        full: the net before channels were removed.

    Raises:
        KeyError: if `full` has not all layers of `model`.
    """
    classifier = _classifier(model)
    layers = dict(full.named_modules())
    widths = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and module is not classifier:
            sizes = list(weight.shape[:2])
            if sizes != list(_weight(layers[name]).shape[:2]):
                widths[name] = sizes
    return widths


def narrow(model: nn.Module, widths: Widths) -> None:
    """Keep the first channels of each layer in `widths`, and as many inputs of the classifier as the features have.

    Args:
        model: one of this package's nets, whose `feature_info` and `num_features` are corrected, too.
        widths: as `find_widths` returns them.

    Raises:
        ValueError: if there is no such layer, a size is below 1 or above the layer's, or layers do not fit together.
    """
    layers: dict[str, Any] = dict(model.named_modules())
    for name, sizes in widths.items():
        if name not in layers or not isinstance(getattr(layers[name], "weight", None), Tensor):
            raise ValueError(f"widths has {name!r}, which is not a layer with a weight")
        _check_sizes(name, sizes, layers[name].weight.shape[:2])
        _narrow_layer(layers[name], sizes)
    _follow(model)


def _check_sizes(name: str, sizes: Sequence[int], full: Sequence[int]) -> None:
    fits = isinstance(sizes, list | tuple) and len(sizes) == len(full) and all(isinstance(n, int) for n in sizes)
    if not (fits and all(1 <= size <= most for size, most in zip(sizes, full, strict=True))):
        raise ValueError(f"widths of {name} must be {len(full)} numbers from 1 to {list(full)}, got {sizes!r}")


def _narrow_layer(layer: Any, sizes: Sequence[int]) -> None:
    for name, value in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
        if value.dim() > 0:  # the counter of a batch norm's batches has no channels
            kept = value.detach()[tuple(slice(size) for size in sizes[: value.dim()])].clone()
            if isinstance(value, nn.Parameter):
                setattr(layer, name, nn.Parameter(kept, requires_grad=value.requires_grad))
            else:
                setattr(layer, name, kept)
    if isinstance(layer, nn.Conv2d):
        if layer.groups == layer.in_channels > 1:  # depthwise; an SE's second layer may have one input, too
            layer.groups = sizes[0]
        layer.out_channels, layer.in_channels = sizes[0], sizes[1] * layer.groups
    elif isinstance(layer, _BatchNorm):
        layer.num_features = sizes[0]
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = sizes


def _follow(model: Any) -> None:
    """Correct what follows from the widths: attributes that timm sets, and the number of the classifier's inputs."""
    before = model.num_features
    on_meta = copy.deepcopy(model).to("meta").eval()
    in_chans = next(on_meta.parameters()).shape[1]
    x = torch.empty(2, in_chans, _SIDE, _SIDE, device="meta", dtype=next(on_meta.parameters()).dtype)
    try:
        levels = on_meta.forward_intermediates(x, intermediates_only=True)  # (B, C, H, W) each
        features = on_meta.forward_features(x)  # (B, C, H, W)
    except RuntimeError as error:
        raise ValueError(f"widths do not fit together: {str(error).splitlines()[0]}") from error
    for info, level in zip(model.feature_info, levels, strict=True):
        info["num_chs"] = level.shape[1]
    model.num_features = features.shape[1]
    model.head_hidden_size = model.head_hidden_size // before * model.num_features
    classifier = _classifier(model)
    if classifier is not None:
        sizes = list(classifier.weight.shape[:2])
        _narrow_layer(classifier, [sizes[0], sizes[1] // before * model.num_features])


def _classifier(model: Any) -> Any:
    """The classifier, a linear layer or a 1 x 1 convolution; None for a net without one."""
    classifier = model.get_classifier()
    return classifier if isinstance(getattr(classifier, "weight", None), Tensor) else None


def _weight(layer: Any) -> Tensor:
    return layer.weight
