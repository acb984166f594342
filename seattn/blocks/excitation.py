"""The excitation that an attention module of timm, torchvision or this package computes, with its own parameters.

A new kind of attention is one function and its line in `_READERS`. Types are compared exactly: a subclass may compute
anything. Shapes: C channels, R hidden channels, k taps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from timm.layers import CecaModule, EcaModule, EffectiveSEModule, SEModule, activations, activations_me
from timm.models import senet
from timm.models._efficientnet_blocks import SqueezeExcite as EfficientNetSE
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from seattn.layers._watched import is_over_channels, is_pointwise
from seattn.layers.eca import EfficientChannelAttn
from seattn.layers.se import SqueezeExcite
from seattn.ops._tail.excitation import ECA, SE, EffectiveSE, Excitation

Reason = str  # why no op computes a module
LABELS = {"se": "squeeze-excite", "ese": "effective squeeze-excite", "eca": "efficient channel attention"}

_ACTS: dict[type, str] = {
    nn.ReLU: "relu",
    nn.SiLU: "silu",
    activations.Swish: "silu",
    activations_me.SwishMe: "silu",
    activations.GELU: "gelu",
    nn.GELU: "gelu",
    nn.Hardswish: "hard_swish",
    activations.HardSwish: "hard_swish",
    activations_me.HardSwishMe: "hard_swish",
    nn.Identity: "identity",
}
_GATES: dict[type, str] = {
    nn.Sigmoid: "sigmoid",
    activations.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hard_sigmoid",
    activations.HardSigmoid: "hard_sigmoid",
    activations_me.HardSigmoidMe: "hard_sigmoid",
}


class Parts(NamedTuple):
    """What an excitation is made of: the modules that hold its weights, and the names of activation and gate."""

    kind: str
    first: Any
    second: Any = None
    act: str = "identity"
    gate: str = "sigmoid"


def act_name(module: nn.Module) -> str | None:
    """The ops' name of an activation module, or None."""
    if type(module) is nn.GELU and module.approximate != "none":
        return None
    return _ACTS.get(type(module))


def gate_name(module: nn.Module) -> str | None:
    """The ops' name of a gate module, or None."""
    return _GATES.get(type(module))


def excitation_of(module: nn.Module, *, traced: bool = False) -> Excitation | Reason:
    """The excitation that the module computes between mean and product, or the reason why no op computes it.

    Args:
        traced: read the weights as attributes, so that they become nodes of the graph that torch.fx is recording.
    """
    reader = _READERS.get(type(module))
    if reader is None:
        return "no op computes it inside a tail"
    try:
        parts = reader(module)
    except KeyError as missing:
        return f"its {missing.args[0]} is not a module"
    if isinstance(parts, Reason):
        return parts
    w1, b1 = _weights(parts.first, traced)
    if parts.kind == "eca":
        return ECA(w1=w1.view(-1), gate=parts.gate)  # (k)
    if parts.second is None:
        return EffectiveSE(w1=w1.flatten(1), b1=b1, gate=parts.gate)  # (C, C), (C)
    w2, b2 = _weights(parts.second, traced)
    # (R, C), (R), (C, R), (C)
    return SE(w1=w1.flatten(1), b1=b1, w2=w2.flatten(1), b2=b2, act=parts.act, gate=parts.gate)


def _weights(conv: Any, traced: bool) -> tuple[Tensor, Tensor | None]:
    # This runs in every call. An attribute lookup of nn.Module searches three dictionaries in Python; on a CPU a dozen
    # lookups take as long as a matrix product for a small map.
    if traced:
        return conv.weight, conv.bias
    own = conv._parameters
    return own["weight"], own["bias"]


def is_known(kind: type) -> bool:
    """Whether there is a reader for modules of exactly this type."""
    return kind in _READERS


def known_types() -> tuple[type[nn.Module], ...]:
    """All types of modules that have a reader."""
    return tuple(_READERS)


def add_reader(kind: Any, like: Any) -> None:
    """Read modules of type `kind` as those of type `like`."""
    _READERS[kind] = _READERS[like]


def _bottleneck(module: nn.Module, first: str, act: str, second: str, gate: str) -> Parts | Reason:
    """The parts of a squeeze-excite, from the names of the attributes that hold them."""
    parts: Any = module._modules
    for place, conv in (("first", parts[first]), ("second", parts[second])):
        if not is_pointwise(conv):
            return f"its {place} convolution is not a plain 1 x 1 nn.Conv2d"
    act_function, gate_function = act_name(parts[act]), gate_name(parts[gate])
    if act_function is None:
        return f"activation {type(parts[act]).__name__}"
    if gate_function is None:
        return f"gate {type(parts[gate]).__name__}"
    return Parts("se", parts[first], parts[second], act_function, gate_function)


def _timm_se(module: Any) -> Parts | Reason:
    bn = module._modules["bn"]
    if type(bn) is not nn.Identity:
        return f"{type(bn).__name__} inside the gate"
    if module.add_maxpool:
        return "add_maxpool: no op pools mean and maximum into one squeeze"
    return _bottleneck(module, "fc1", "act", "fc2", "gate")


def _efficientnet_se(module: Any) -> Parts | Reason:
    return _bottleneck(module, "conv_reduce", "act1", "conv_expand", "gate")


def _legacy_se(module: Any) -> Parts | Reason:
    return _bottleneck(module, "fc1", "relu", "fc2", "sigmoid")


def _torchvision_se(module: Any) -> Parts | Reason:
    if type(module.avgpool) is not nn.AdaptiveAvgPool2d or module.avgpool.output_size not in (1, (1, 1)):
        return "its pooling is not nn.AdaptiveAvgPool2d(1)"
    return _bottleneck(module, "fc1", "activation", "fc2", "scale_activation")


def _own_se(module: Any) -> Parts | Reason:
    fc1, fc2 = module._modules["fc1"], module._modules["fc2"]
    if not (is_pointwise(fc1) and is_pointwise(fc2)):
        return "one of its convolutions is not a plain 1 x 1 nn.Conv2d"
    return Parts("se", fc1, fc2, module.act_name, module.gate_name)


def _timm_ese(module: Any) -> Parts | Reason:
    if module.add_maxpool:
        return "add_maxpool: no op pools mean and maximum into one squeeze"
    if not is_pointwise(module.fc):
        return "its convolution is not a plain 1 x 1 nn.Conv2d"
    gate = gate_name(module.gate)
    return f"gate {type(module.gate).__name__}" if gate is None else Parts("ese", module.fc, gate=gate)


def _timm_eca(module: Any) -> Parts | Reason:
    if module.conv2 is not None:
        return "use_mlp: no op for two convolutions"
    gate = gate_name(module._modules["gate"])
    return f"gate {type(module.gate).__name__}" if gate is None else _over_channels(module._modules["conv"], gate)


def _own_eca(module: Any) -> Parts | Reason:
    return _over_channels(module._modules["conv"], module.gate_name)


def _over_channels(conv: nn.Module, gate: str) -> Parts | Reason:
    if not is_over_channels(conv):
        return "its convolution is not a plain nn.Conv1d(1, 1, k) of odd k, padded by k // 2, without bias"
    return Parts("eca", conv, gate=gate)


def _timm_ceca(module: Any) -> Parts | Reason:
    return "circular padding: the op pads with zeros"


_READERS: dict[type[nn.Module], Callable[[Any], Parts | Reason]] = {
    SEModule: _timm_se,
    EffectiveSEModule: _timm_ese,
    EcaModule: _timm_eca,
    CecaModule: _timm_ceca,
    EfficientNetSE: _efficientnet_se,
    senet.SEModule: _legacy_se,
    SqueezeExcitation: _torchvision_se,
    SqueezeExcite: _own_se,
    EfficientChannelAttn: _own_eca,
}
