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

from seattn.blocks.excitation import Reason, excitation_of
from seattn.ops._tail.excitation import excite_reference

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
