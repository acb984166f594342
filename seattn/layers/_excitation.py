"""From a module of timm, torchvision or ours to the excitation that it computes, with its own parameters.

A new kind of attention is one function and its line in `_READERS`. Types are compared exactly: a subclass may compute
anything. Shapes: C channels, R hidden channels, k taps.
"""

from collections.abc import Callable
from typing import Any

from timm.layers import CecaModule, EcaModule, EffectiveSEModule, SEModule, activations, activations_me
from timm.models import senet
from timm.models._efficientnet_blocks import SqueezeExcite as EfficientNetSE
from torch import nn
from torchvision.ops import SqueezeExcitation

from seattn.layers.eca import EfficientChannelAttn
from seattn.layers.se import SqueezeExcite
from seattn.ops._excite import Excitation

Reason = str  # why a module is left to itself
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


def act_name(module: nn.Module) -> str | None:
    """The ops' name of an activation module, or None."""
    if type(module) is nn.GELU and module.approximate != "none":
        return None
    return _ACTS.get(type(module))


def gate_name(module: nn.Module) -> str | None:
    """The ops' name of a gate module, or None."""
    return _GATES.get(type(module))


def excitation_of(module: nn.Module) -> Excitation | Reason:
    """What the module computes between mean and product, or why no op computes it."""
    reader = _READERS.get(type(module))
    return "no op has it inside" if reader is None else reader(module)


def is_known(kind: type) -> bool:
    """Whether modules of exactly this type are read."""
    return kind in _READERS


def known_types() -> tuple[type[nn.Module], ...]:
    """All types that are read."""
    return tuple(_READERS)


def add_reader(kind: type[nn.Module], like: type[nn.Module]) -> None:
    """Read modules of type `kind` as those of type `like`."""
    _READERS[kind] = _READERS[like]


def _squeeze_excite(
    fc1: Any, act: nn.Module, fc2: Any, gate: nn.Module, *, max_pooled: bool = False
) -> Excitation | Reason:
    if max_pooled:
        return "add_maxpool: no op pools mean and maximum into one squeeze"
    for name, fc in (("first", fc1), ("second", fc2)):
        if not is_pointwise(fc):
            return f"its {name} convolution is not a plain 1 x 1 nn.Conv2d"
    if (act_of := act_name(act)) is None:
        return f"activation {type(act).__name__}"
    if (gate_of := gate_name(gate)) is None:
        return f"gate {type(gate).__name__}"
    w1, w2 = fc1.weight.flatten(1), fc2.weight.flatten(1)  # (R, C), (C, R)
    return Excitation("se", w1, fc1.bias, w2, fc2.bias, act_of, gate_of)


def _timm_se(m: Any) -> Excitation | Reason:
    if type(m.bn) is not nn.Identity:
        return f"{type(m.bn).__name__} inside the gate"
    return _squeeze_excite(m.fc1, m.act, m.fc2, m.gate, max_pooled=m.add_maxpool)


def _efficientnet_se(m: Any) -> Excitation | Reason:
    return _squeeze_excite(m.conv_reduce, m.act1, m.conv_expand, m.gate)


def _legacy_se(m: Any) -> Excitation | Reason:
    return _squeeze_excite(m.fc1, m.relu, m.fc2, m.sigmoid)


def _torchvision_se(m: Any) -> Excitation | Reason:
    if type(m.avgpool) is not nn.AdaptiveAvgPool2d or m.avgpool.output_size not in (1, (1, 1)):
        return "its pooling is not nn.AdaptiveAvgPool2d(1)"
    return _squeeze_excite(m.fc1, m.activation, m.fc2, m.scale_activation)


def _own_se(m: Any) -> Excitation | Reason:
    if not (is_pointwise(m.fc1) and is_pointwise(m.fc2)):
        return "a convolution of it is not a plain 1 x 1 nn.Conv2d"
    w1, w2 = m.fc1.weight.flatten(1), m.fc2.weight.flatten(1)  # (R, C), (C, R)
    return Excitation("se", w1, m.fc1.bias, w2, m.fc2.bias, m.act_name, m.gate_name)


def _timm_ese(m: Any) -> Excitation | Reason:
    if m.add_maxpool:
        return "add_maxpool: no op pools mean and maximum into one squeeze"
    if not is_pointwise(m.fc):
        return "its convolution is not a plain 1 x 1 nn.Conv2d"
    if (gate := gate_name(m.gate)) is None:
        return f"gate {type(m.gate).__name__}"
    return Excitation("ese", m.fc.weight.flatten(1), m.fc.bias, gate=gate)


def _timm_eca(m: Any) -> Excitation | Reason:
    if m.conv2 is not None:
        return "use_mlp: no op for two convolutions"
    if (gate := gate_name(m.gate)) is None:
        return f"gate {type(m.gate).__name__}"
    return _over_channels(m.conv, gate)


def _own_eca(m: Any) -> Excitation | Reason:
    return _over_channels(m.conv, m.gate_name)


def _over_channels(conv: Any, gate: str) -> Excitation | Reason:
    if (
        type(conv) is not nn.Conv1d
        or (conv.in_channels, conv.out_channels) != (1, 1)
        or conv.bias is not None
        or conv.kernel_size[0] % 2 == 0
        or conv.padding != (conv.kernel_size[0] // 2,)
        or conv.padding_mode != "zeros"
        or conv.stride != (1,)
        or conv.dilation != (1,)
    ):
        return "its convolution is not a plain nn.Conv1d(1, 1, k) of odd k, padded by k // 2, without bias"
    return Excitation("eca", conv.weight.flatten(), gate=gate)  # (k)


def _timm_ceca(m: Any) -> Excitation | Reason:
    return "circular padding: the op pads with zeros"


def is_pointwise(conv: Any) -> bool:
    """Whether the module is a matrix over channels and nothing else."""
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == 1
    )


_READERS: dict[type[nn.Module], Callable[[Any], Excitation | Reason]] = {
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
