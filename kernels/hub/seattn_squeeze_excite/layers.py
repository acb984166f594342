"""Layers for `kernels.kernelize`: another forward for a module that keeps its own parameters.

The package `kernels` wants them pure: no constructor, no attributes but its two flags, no method but forward.
Shapes: B images, C channels, H x W pixels, R hidden channels.
"""

# mypy: disable-error-code="import-not-found"
# (ops/ is put beside this file by kernels/hub/stage.py)

import warnings
from typing import Any

import torch
from torch import nn

from .ops.se import squeeze_excite

# Attributes of timm.layers.SEModule and of the SqueezeExcite of timm's EfficientNets and MobileNets, by their role.
_SPELLINGS = (("fc1", "act", "fc2", "gate"), ("conv_reduce", "act1", "conv_expand", "gate"))
# By name, and only of torch and timm: this package does without timm. Beside torch's classes timm's own ones.
_ACTS = {
    "ReLU": "relu",
    "SiLU": "silu",
    "Swish": "silu",
    "SwishMe": "silu",
    "GELU": "gelu",
    "Hardswish": "hard_swish",
    "HardSwish": "hard_swish",
    "HardSwishMe": "hard_swish",
    "Identity": "identity",
}
_GATES = {
    "Sigmoid": "sigmoid",
    "Hardsigmoid": "hard_sigmoid",
    "HardSigmoid": "hard_sigmoid",
    "HardSigmoidMe": "hard_sigmoid",
}


class SqueezeExcite(nn.Module):
    """The forward of timm's SEModule and SqueezeExcite as one operator, over the parameters that the module has.

    A module that computes anything else (a norm or a maximum inside, an activation unknown here, a subclass of the
    class that was marked) keeps the forward of its class; a warning says why, unless torch.compile is tracing.

    Shape: (B, C, H, W) -> (B, C, H, W).
    """

    has_backward: bool = True
    can_torch_compile: bool = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reason = _why_not(self)
        if reason is not None:
            if type(self).forward is SqueezeExcite.forward:
                raise TypeError(f"SqueezeExcite is a forward for other modules, see kernels.kernelize: {reason}")
            if not torch.compiler.is_compiling():  # where it would break the graph
                warnings.warn(f"{type(self).__name__} keeps its own forward: {reason}", stacklevel=2)
            y: torch.Tensor = type(self).forward(self, x)
            return y
        fc1, act, fc2, gate = _parts(self)
        y = squeeze_excite(
            x,
            fc1.weight.flatten(1),  # (R, C)
            fc1.bias,
            fc2.weight.flatten(1),  # (C, R)
            fc2.bias,
            act=_ACTS[type(act).__name__],
            gate=_GATES[type(gate).__name__],
        )
        return y


def _parts(module: nn.Module) -> list[Any]:
    """Both convolutions with activation and gate, in the order in which they run; none if a name is missing."""
    for names in _SPELLINGS:
        if all(hasattr(module, name) for name in names):
            return [getattr(module, name) for name in names]
    return []


def _why_not(module: nn.Module) -> str | None:
    """Why the operator does not compute what the module does, or None if it does."""
    parts = _parts(module)
    if not parts:
        return f"it has neither {' nor '.join(', '.join(names) for names in _SPELLINGS)}"
    if "kernel_layer_name" not in type(module).__dict__:
        return "its class only inherits the mark for kernelize, and may compute anything"
    fc1, act, fc2, gate = parts
    for child in module.children():
        if not any(child is part for part in parts) and type(child) is not nn.Identity:
            return f"{type(child).__name__} inside the gate"
    if getattr(module, "add_maxpool", False):
        return "add_maxpool: the operator pools the mean only"
    for fc in (fc1, fc2):
        if type(fc) is not nn.Conv2d or fc.kernel_size != (1, 1) or fc.stride != (1, 1) or fc.groups != 1:
            return "a convolution of it is not a plain 1 x 1 nn.Conv2d"
        if fc.padding != (0, 0):
            return "a convolution of it is padded"
    if not _is_known(act, _ACTS):
        return f"activation {type(act).__name__}"
    if not _is_known(gate, _GATES):
        return f"gate {type(gate).__name__}"
    return None


def _is_known(module: nn.Module, names: dict[str, str]) -> bool:
    kind = type(module)
    exact = getattr(module, "approximate", "none") == "none"  # of GELU
    return kind.__module__.partition(".")[0] in ("torch", "timm") and kind.__name__ in names and exact
