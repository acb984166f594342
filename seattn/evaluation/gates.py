"""Gates by depth: the channel gates that attention layers give an image, CBAM's spatial gates, and their spread.

Hu et al., CVPR 2018, section 7.2, find early layers' gates alike for all classes and later ones' their own.
Shapes: B images, C channels, H x W pixels of a layer's map.
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
from seattn.layers.cbam import SpatialAttn
from seattn.ops._tail.excitation import excite_reference, gate_fn

Gate = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class LayerGates:
    """The gates (C,) of one attention layer, float32; `name` is the module's path in the model."""

    name: str
    gates: npt.NDArray[np.float32]


@torch.inference_mode()
def collect_gates(model: nn.Module, image: torch.Tensor) -> list[LayerGates]:
    """Run `image` (1, C, H, W) through `model`; the gates of every layer that has some, in order of use.

    Those are the layers with a method `gate`, and the attention of timm and torchvision that `accelerate` knows. A
    layer inside such a layer is left out: it is a part, not one more.
    """
    found: list[LayerGates] = []

    def record(name: str, gate: Gate) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.append(LayerGates(name, gate(inputs[0])[0].float().cpu().numpy()))

        return hook

    gates: dict[str, tuple[nn.Module, Gate]] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in gates)
        if not inside and (gate := _gate_of(module)) is not None:
            gates[name] = module, gate
    training = model.training
    hooks = [module.register_forward_pre_hook(record(name, gate)) for name, (module, gate) in gates.items()]
    try:
        model.eval()(image.to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    return found


def _gate_of(module: nn.Module) -> Gate | None:
    """What gives the layer's factors (B, C) for its input (B, C, H, W); None if it has none that is known."""
    if callable(getattr(type(module), "gate", None)):
        return cast(Gate, module.gate)
    excitation = excitation_of(module)
    if isinstance(excitation, Reason):
        return None
    return lambda x: excite_reference(x.float().mean((2, 3)), excitation)


@dataclass(frozen=True)
class GateDifference:
    """Of one layer the mean |difference| of two images' gates, over pairs of one class and of two; None: no pair."""

    layer: str
    same_class: float | None
    other_class: float | None


@torch.inference_mode()
def collect_spatial_gates(model: nn.Module, x: torch.Tensor) -> list[tuple[str, npt.NDArray[np.float32]]]:
    """What each spatial gate of CBAM multiplies the pixels of its map by, (H, W), for x (1, 3, H, W)."""
    found: list[tuple[str, npt.NDArray[np.float32]]] = []

    def record(name: str) -> Callable[[SpatialAttn, tuple[Any, ...]], None]:
        def hook(module: SpatialAttn, inputs: tuple[Any, ...]) -> None:
            y = inputs[0]  # (1, C, H, W)
            pooled = torch.cat([y.amax(1, keepdim=True), y.mean(1, keepdim=True)], 1)  # (1, 2, H, W)
            gate = gate_fn(module.bn(module.conv(pooled)), module.gate_name)  # (1, 1, H, W)
            found.append((name, gate[0, 0].float().cpu().numpy()))

        return hook

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, SpatialAttn)]
    hooks = [module.register_forward_pre_hook(record(name)) for name, module in layers]
    try:
        if layers:
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def gate_differences(gates: Sequence[Sequence[LayerGates]], classes: Sequence[int]) -> list[GateDifference]:
    """One entry a layer; `gates` and `classes` are of each image. Empty for one image, or without gates."""
    if len(gates) < 2 or not gates[0]:
        return []
    found = []
    for depth, layer in enumerate(gates[0]):
        apart: dict[bool, list[float]] = {True: [], False: []}
        for a, b in combinations(range(len(gates)), 2):
            change = np.abs(gates[a][depth].gates - gates[b][depth].gates)  # (C,)
            apart[classes[a] == classes[b]].append(float(change.mean()))
        same, other = (float(np.mean(apart[key])) if apart[key] else None for key in (True, False))
        found.append(GateDifference(layer.name, same, other))
    return found
