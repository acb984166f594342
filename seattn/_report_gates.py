"""The channel gates that a model's attention layers give one image, layer by layer.

Shapes: B images, C channels of a layer, H x W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class LayerGates:
    """The gates (C,) of one attention layer, float32; `name` is the module's path in the model."""

    name: str
    gates: npt.NDArray[np.float32]


@torch.inference_mode()
def collect_gates(model: nn.Module, image: torch.Tensor) -> list[LayerGates]:
    """Run `image` (1, C, H, W) through `model`; the gates of every layer that has a `gate` method, in order of use.

    A layer inside such a layer is left out: it is a part, not one more.
    """
    found: list[LayerGates] = []

    def record(name: str, layer: nn.Module) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        gate = cast(Callable[[torch.Tensor], torch.Tensor], layer.gate)

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.append(LayerGates(name, gate(inputs[0])[0].float().cpu().numpy()))

        return hook

    layers: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in layers)
        if callable(getattr(type(module), "gate", None)) and not inside:
            layers[name] = module
    training = model.training
    hooks = [layer.register_forward_pre_hook(record(name, layer)) for name, layer in layers.items()]
    try:
        model.eval()(image.to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    return found
