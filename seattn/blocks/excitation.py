"""From a module of timm, torchvision or ours to the excitation that it computes, with its own parameters.

A new kind of attention is one function and its line in `_READERS`. Types are compared exactly: a subclass may compute
anything. Shapes: C channels, R hidden channels, k taps.
"""

from collections.abc import Callable
from typing import Any

from timm.layers import CecaModule, EcaModule, EffectiveSEModule, SEModule, activations, activations_me
from timm.models import senet
from timm.models._efficientnet_blocks import SqueezeExcite as EfficientNetSE
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from seattn.layers.eca import EfficientChannelAttn
from seattn.layers.se import SqueezeExcite
from seattn.ops._tail.excitation import Excitation

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
    if reader is None:
        return "no op has it inside"
    try:
        return reader(module)
    except KeyError as missing:
        return f"its {missing.args[0]} is no module"


def is_known(kind: type) -> bool:
    """Whether modules of exactly this type are read."""
    return kind in _READERS


def known_types() -> tuple[type[nn.Module], ...]:
    """All types that are read."""
    return tuple(_READERS)


def add_reader(kind: type[nn.Module], like: type[nn.Module]) -> None:
    """Read modules of type `kind` as those of type `like`."""
    _READERS[kind] = _READERS[like]


# This is read in every call. nn.Module's own lookup goes through three dictionaries in Python, and on the small maps of
# a CPU a dozen of those takes as long as one of the products: so the parts are taken from the dictionary they are in.


def _squeeze_excite(fc1: Any, act: nn.Module, fc2: Any, gate: nn.Module) -> Excitation | Reason:
    if not (is_pointwise(fc1) and is_pointwise(fc2)):
        return f"its {'second' if is_pointwise(fc1) else 'first'} convolution is not a plain 1 x 1 nn.Conv2d"
    if (act_of := act_name(act)) is None:
        return f"activation {type(act).__name__}"
    if (gate_of := gate_name(gate)) is None:
        return f"gate {type(gate).__name__}"
    return _excitation(fc1, act_of, fc2, gate_of)


def _excitation(fc1: Any, act: str, fc2: Any, gate: str) -> Excitation:
    w1, b1 = _matrix(fc1)  # (R, C), (R)
    w2, b2 = _matrix(fc2)  # (C, R), (C)
    return Excitation("se", w1, b1, w2, b2, act, gate)


def _matrix(conv: Any) -> tuple[Tensor, Tensor | None]:
    parameters = conv._parameters
    if "weight" in parameters and "bias" in parameters:
        return parameters["weight"].flatten(1), parameters["bias"]
    return conv.weight.flatten(1), conv.bias  # pruned, say: computed anew before each call


def _timm_se(m: Any) -> Excitation | Reason:
    parts = m._modules
    if type(parts["bn"]) is not nn.Identity:
        return f"{type(parts['bn']).__name__} inside the gate"
    if m.add_maxpool:
        return "add_maxpool: no op pools mean and maximum into one squeeze"
    return _squeeze_excite(parts["fc1"], parts["act"], parts["fc2"], parts["gate"])


def _efficientnet_se(m: Any) -> Excitation | Reason:
    parts = m._modules
    return _squeeze_excite(parts["conv_reduce"], parts["act1"], parts["conv_expand"], parts["gate"])


def _legacy_se(m: Any) -> Excitation | Reason:
    parts = m._modules
    return _squeeze_excite(parts["fc1"], parts["relu"], parts["fc2"], parts["sigmoid"])


def _torchvision_se(m: Any) -> Excitation | Reason:
    if type(m.avgpool) is not nn.AdaptiveAvgPool2d or m.avgpool.output_size not in (1, (1, 1)):
        return "its pooling is not nn.AdaptiveAvgPool2d(1)"
    parts = m._modules
    return _squeeze_excite(parts["fc1"], parts["activation"], parts["fc2"], parts["scale_activation"])


def _own_se(m: Any) -> Excitation | Reason:
    fc1, fc2 = m._modules["fc1"], m._modules["fc2"]
    if not (is_pointwise(fc1) and is_pointwise(fc2)):
        return "a convolution of it is not a plain 1 x 1 nn.Conv2d"
    return _excitation(fc1, m.act_name, fc2, m.gate_name)


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
    parts = m._modules
    if (gate := gate_name(parts["gate"])) is None:
        return f"gate {type(parts['gate']).__name__}"
    return _over_channels(parts["conv"], gate)


def _own_eca(m: Any) -> Excitation | Reason:
    return _over_channels(m._modules["conv"], m.gate_name)


def _over_channels(conv: Any, gate: str) -> Excitation | Reason:
    if (
        type(conv) is not nn.Conv1d
        or conv.in_channels != 1
        or conv.out_channels != 1
        or conv._parameters["bias"] is not None
        or conv.kernel_size[0] % 2 == 0
        or conv.padding != (conv.kernel_size[0] // 2,)
        or conv.padding_mode != "zeros"
        or conv.stride != (1,)
        or conv.dilation != (1,)
    ):
        return "its convolution is not a plain nn.Conv1d(1, 1, k) of odd k, padded by k // 2, without bias"
    weight = conv._parameters.get("weight")
    return Excitation("eca", (conv.weight if weight is None else weight).view(-1), gate=gate)  # (k)


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
