"""Tensors with timm's names are made to fit one model, and differences between its computation and the checkpoint's.

Shapes: C channels, R hidden channels.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from seattn.blocks.excitation import excitation_of
from seattn.layers._bottleneck import SPELLINGS
from seattn.models.checkpoints.layouts import CheckpointLayout, Names, State
from seattn.ops._tail.excitation import Excitation

# The steps of an nn.Sequential in MCUNet and ProxylessNAS, whose gate is a hard sigmoid; other names show no gate.
HARD = ("fc.reduce", "fc.expand")
_SPELLINGS = (("fc1", "fc2"), *SPELLINGS, HARD)


Shapes = Mapping[str, torch.Size]


class Pair(NamedTuple):
    """The two matrices of one squeeze-excite: (R, C) and (C, R), as Linear or 1 x 1 convolution."""

    module: str  # path of the module whose parts they are
    first: str
    second: str
    channels: int
    hard: bool


def find_pairs(shapes: Shapes) -> list[Pair]:
    """Each squeeze-excite among the names of weights."""
    pairs = []
    for spelling in _SPELLINGS:
        ending = f".{spelling[0]}.weight"
        for key in [key for key in shapes if key.endswith(ending)]:
            module = key.removesuffix(ending)
            first, second = (f"{module}.{name}" for name in spelling)
            w1, w2 = shapes[key], shapes.get(f"{second}.weight", ())
            if len(w1) in (2, 4) and (*w1[1::-1], *w1[2:]) == tuple(w2) and set(w1[2:]) <= {1}:
                pairs.append(Pair(module, first, second, w1[1], spelling == HARD))
    return pairs


def match_pairs(source: Iterable[Pair], target: Iterable[Pair]) -> list[tuple[Pair, Pair]]:
    """Each squeeze-excite of the checkpoint with the model's: in the same module, within it, or beside it."""
    free = {pair.module: pair for pair in target}
    matched = []
    for pair in source:
        parent, _, attribute = pair.module.rpartition(".")
        found = free.get(pair.module) or _only(free, pair.module)
        if found is None and parent and not attribute.isdigit():  # "layer1.0" is one block of "layer1"
            found = _only(free, parent)
        if found is not None:
            matched.append((pair, free.pop(found.module)))
    return matched


def _only(pairs: Mapping[str, Pair], path: str) -> Pair | None:
    within = [pair for module, pair in pairs.items() if module.startswith(f"{path}.")]
    return within[0] if len(within) == 1 else None


def rename_attention(names: Names, matched: Iterable[tuple[Pair, Pair]]) -> Names:
    """`names` in which each squeeze-excite has the model's names."""
    moved: Names = {}
    for source, target in matched:
        for old, new in ((source.first, target.first), (source.second, target.second)):
            moved |= {f"{old}.{part}": f"{new}.{part}" for part in ("weight", "bias")}
    return {moved.get(name, name): key for name, key in names.items()}


def fit(state: State, names: Names, wanted: State, matched: Iterable[tuple[Pair, Pair]]) -> dict[str, torch.Tensor]:
    """The tensors under the model's names and in its shapes, with zeros for biases and counters that are missing.

    A squeeze-excite without biases computes the same as with biases of 0.
    """
    found = {name: state[key] for name, key in names.items()}
    biases = [f"{part}.bias" for _, target in matched for part in (target.first, target.second)]
    if not any(bias in found for bias in biases):  # if only some are missing, the file is damaged
        found |= {bias: torch.zeros_like(wanted[bias], device="cpu") for bias in biases if bias in wanted}
    for _, target in matched:
        for name in (f"{target.first}.weight", f"{target.second}.weight"):
            if found[name].ndim != wanted[name].ndim:  # (R, C) <-> (R, C, 1, 1)
                found[name] = found[name].reshape(*found[name].shape[:2], *wanted[name].shape[2:])
    return with_counters(found, wanted)


def with_counters(found: State, wanted: State) -> dict[str, torch.Tensor]:
    """`found` and, for each norm of it, the counter of batches, which torch before 0.4.1 did not save."""
    result = dict(found)
    for name, value in wanted.items():
        if name.endswith(".num_batches_tracked") and name.replace("num_batches_tracked", "running_mean") in result:
            result.setdefault(name, torch.zeros_like(value, device="cpu"))
    return result


def fold_conv_biases(found: dict[str, torch.Tensor], wanted: State) -> None:
    """In place: a bias that the model's convolution does not have is subtracted from the mean of the norm after it."""
    for bias in [name for name in found if name.endswith(".bias") and name not in wanted]:
        conv = bias.removesuffix(".bias")
        norm = re.sub(r"(?<=\.)downsample\.0$", "downsample.1", re.sub(r"conv(\d)$", r"bn\1", conv))
        mean = f"{norm}.running_mean"
        if norm != conv and mean in found and found[mean].shape == found[bias].shape:
            found[mean] = found[mean] - found.pop(bias).to(found[mean].dtype)


def attention_difference(
    matched: Iterable[tuple[Pair, Pair]], model: nn.Module, layout: CheckpointLayout
) -> str | None:
    """How a squeeze-excite of the model differs: another gate or activation, or a ReLU before it; None if none does."""
    for source, target in matched:
        gate = "hard_sigmoid" if source.hard else "sigmoid" if layout.fixed else None
        found = excitation_of(model.get_submodule(target.module))
        if isinstance(found, Excitation) and gate is not None:
            for part, expected, name in (("gate", gate, found.gate), ("activation", "relu", found.act)):
                if name != expected:
                    return f"the {part} of its squeeze-excite is {expected}, here {name}"
        if layout.fixed and layout.relu_before_attn != _after_relu(model, target.module):
            return (
                "a ReLU is between its last norm and its squeeze-excite, here there is none (a block whose se is "
                "nn.Sequential(nn.ReLU(), se) has one)"
                if layout.relu_before_attn
                else "no ReLU is between its last norm and its squeeze-excite, here there is one"
            )
    return None


def _after_relu(model: nn.Module, path: str) -> bool:
    parent, _, step = path.rpartition(".")
    steps = model.get_submodule(parent)
    return isinstance(steps, nn.Sequential) and step.isdigit() and any(type(m) is nn.ReLU for m in steps[: int(step)])


def differences(model: nn.Module) -> list[str]:
    """The properties of a model that differ from the ResNets of every fixed layout and that no key shows."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.eps != 1e-5:
            found.append(f"{name}.eps is {module.eps:g}, not 1e-05")
        if not (isinstance(getattr(module, "conv1", None), nn.Conv2d) and hasattr(module, "conv2")):
            continue
        for act in ("act1", "act2", "act3"):
            if not isinstance(getattr(module, act, None), nn.ReLU | None):
                found.append(f"{name}.{act} is {type(getattr(module, act)).__name__}, not ReLU")
        if hasattr(module, "conv3") and module.conv1.stride != (1, 1):
            found.append(f"{name} strides in its first 1 x 1 convolution, not in the 3 x 3")
    conv, pool = getattr(model, "conv1", None), getattr(model, "maxpool", None)
    if isinstance(conv, nn.Conv2d):
        small = conv.kernel_size == (3, 3)
        if conv.stride != ((1, 1) if small else (2, 2)):
            found.append(f"the stem's stride is {conv.stride[0]}, not {1 if small else 2}")
        if small == isinstance(pool, nn.MaxPool2d):
            found.append("the stem has a max-pool" if small else "the stem has no max-pool")
    return found
