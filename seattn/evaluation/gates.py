"""Gates by depth: the spatial gates of CBAM, and how much the channel gates of different images differ, layer by layer.

Hu et al., CVPR 2018, section 7.2, find early layers' gates alike for all classes and later ones' their own.
Shapes: C channels, H x W pixels of a layer's map.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seattn._report_gates import LayerGates
from seattn.layers.cbam import SpatialAttn
from seattn.ops._tail.excitation import gate_fn


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
