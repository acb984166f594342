"""The gates of a net's attention layers for one image, and how much they differ between images.

Hu et al., CVPR 2018, section 7.2: the gates of early layers are alike for all classes, those of late layers are not.
Shapes: B images, C channels of a layer, H x W pixels of a layer's map.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seattn.blocks.excitation import Reason, excitation_of
from seattn.evaluation.hooks import recorded
from seattn.layers.cbam import SpatialAttn
from seattn.ops._tail.activations import gate_fn

Gate = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class LayerGates:
    """The gates of one attention layer: (C,) for channels, (H, W) for pixels, float32; `name` is the module's path."""

    name: str
    gates: npt.NDArray[np.float32]


@torch.inference_mode()
def collect_gates(model: nn.Module, image: torch.Tensor) -> list[LayerGates]:
    """The channel gates (C,) of every attention layer for `image` (1, C, H, W), in order of use.

    The layers are those with a method `gate`, and the attention of timm and torchvision that `accelerate` knows. A
    layer inside such a layer is a part of it, and is omitted.
    """
    modules: dict[str, nn.Module] = {}
    gates: dict[str, Gate] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in gates)
        if not inside and (gate := _gate_of(module)) is not None:
            modules[name], gates[name] = module, gate
    return _run(model, image, modules, lambda name, x: gates[name](x)[0])


@torch.inference_mode()
def collect_spatial_gates(model: nn.Module, image: torch.Tensor) -> list[LayerGates]:
    """The gates (H, W) of every spatial attention of CBAM for `image` (1, C, H, W), in order of use."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, SpatialAttn)}

    def gate(name: str, x: torch.Tensor) -> torch.Tensor:
        layer = layers[name]
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)  # (1, 2, H, W)
        return gate_fn(layer.bn(layer.conv(pooled)), layer.gate_name)[0, 0]  # (H, W)

    return _run(model, image, layers, gate)


def _run(
    model: nn.Module,
    image: torch.Tensor,
    layers: dict[str, Any],
    gate: Callable[[str, torch.Tensor], torch.Tensor],
) -> list[LayerGates]:
    """The gates of all `layers` in one forward pass; the model's train or eval mode is restored."""
    if not layers:
        return []
    training = model.training
    try:
        with recorded(layers, lambda name, inputs, _: gate(name, inputs[0]).float().cpu(), before=True) as values:
            model.eval()(image.to(next(model.parameters()).device))
    finally:
        model.train(training)
    return [LayerGates(name, value.numpy()) for name, value in values]


def _gate_of(module: nn.Module) -> Gate | None:
    """The function from the layer's input (B, C, H, W) to its factors (B, C); None for other modules."""
    if callable(getattr(type(module), "gate", None)):
        return cast(Gate, module.gate)
    excitation = excitation_of(module)
    if isinstance(excitation, Reason):
        return None
    return lambda x: excitation.reference(x.float().mean((2, 3)))


@dataclass(frozen=True)
class GateDifference:
    """The mean |difference| between the gates of two images in one layer.

    `same_class` is the mean over pairs of images of one class, `other_class` over pairs of two classes; None where
    there is no such pair.
    """

    layer: str
    same_class: float | None
    other_class: float | None


def gate_differences(gates: Sequence[Sequence[LayerGates]], classes: Sequence[int]) -> list[GateDifference]:
    """One entry for each layer, from the gates and the class of each image; empty for one image or without gates."""
    if len(gates) < 2 or not gates[0]:
        return []
    differences = []
    for depth, layer in enumerate(gates[0]):
        same_class, other_class = list[float](), list[float]()
        for a, b in combinations(range(len(gates)), 2):
            distance = float(np.abs(gates[a][depth].gates - gates[b][depth].gates).mean())
            (same_class if classes[a] == classes[b] else other_class).append(distance)
        differences.append(
            GateDifference(
                layer=layer.name,
                same_class=float(np.mean(same_class)) if same_class else None,
                other_class=float(np.mean(other_class)) if other_class else None,
            )
        )
    return differences
