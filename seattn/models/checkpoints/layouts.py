"""The project that wrote a ResNet's checkpoint, found by the keys, and the names of the tensors in timm's ResNets.

A new layout is one function and its line in `LAYOUTS`. The facts come from the code of the projects: pytorchcv 0.0.74,
weiaicunzai/pytorch-cifar100 at 11d8418, kuangliu/pytorch-cifar, moskomule/senet.pytorch at 8cb2669,
Cadene/pretrained-models.pytorch.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

State = Mapping[str, torch.Tensor]
Names = dict[str, str]  # name in timm's ResNet -> key in the checkpoint


class DifferentFunctionError(Exception):
    """The checkpoint's net computes something else than the model. The message describes the checkpoint's net."""


@dataclass(frozen=True)
class CheckpointLayout:
    """One project's names.

    Args:
        name: the name in the log.
        names: timm's names of a state's tensors, or None if the state does not have this layout.
        fixed: whether the names belong to one project. Properties that no key shows are then known from its code: ReLU,
            sigmoid gates, norms with eps 1e-5, a stem of stride 1 (3 x 3) or 2 (7 x 7, max-pool), and bottlenecks that
            stride in the 3 x 3.
        relu_before_attn: whether there is a ReLU between a block's last norm and its attention.
    """

    name: str
    names: Callable[[State], Names | None]
    fixed: bool = True
    relu_before_attn: bool = False


def _pytorchcv(state: State) -> Names | None:
    """pytorchcv's ShakeDrop-ResNets scale each branch, but have the keys of plain nets, and are read as such."""
    if not any(key.startswith("features.init_block.") for key in state):
        return None
    middle = state.get("features.stage1.unit1.body.conv2.conv.weight")  # (mid, mid / groups, 3, 3)
    if (
        "features.init_block.conv.conv.weight" in state  # the stem of ImageNet's nets
        and "features.stage1.unit1.body.conv3.conv.weight" in state
        and middle is not None
        and middle.shape[0] == middle.shape[1]
    ):
        raise DifferentFunctionError(
            "its keys do not show whether bottlenecks stride in the first 1 x 1 convolution (resnet50) or in the 3 x 3 "
            "(resnet50b)"
        )
    return _renamed(
        state,
        (r"^features\.init_block\.(?:conv\.)?bn\.", "bn1."),
        (r"^features\.init_block\.(?:conv\.)?conv\.", "conv1."),
        (r"^features\.stage(\d+)\.unit(\d+)\.", lambda m: f"layer{m[1]}.{int(m[2]) - 1}."),
        (r"^(layer.*)\.body\.conv(\d)\.conv\.", r"\1.conv\2."),
        (r"^(layer.*)\.body\.conv(\d)\.bn\.", r"\1.bn\2."),
        (r"^(layer.*)\.identity_conv\.conv\.", r"\1.downsample.0."),
        (r"^(layer.*)\.identity_conv\.bn\.", r"\1.downsample.1."),
        (r"^(layer.*)\.se\.conv(\d)\.", r"\1.se.fc\2."),
        (r"^output\.", "fc."),
    )


def _pytorch_cifar100(state: State) -> Names | None:
    if not any(key.startswith("conv2_x.0.residual_function.") for key in state):
        return None
    return _renamed(
        state,
        (r"^conv1\.0\.", "conv1."),
        (r"^conv1\.1\.", "bn1."),
        (r"^conv(\d)_x\.", lambda m: f"layer{int(m[1]) - 1}."),
        (r"^(layer.*)\.residual_function\.(\d)\.", _step),
        (r"^(layer.*)\.shortcut\.", r"\1.downsample."),
    )


def _pytorch_cifar100_se(state: State) -> Names | None:
    if not {"pre.0.weight", "stage1.0.residual.0.weight"} <= state.keys():
        return None
    return _renamed(
        state,
        (r"^pre\.0\.", "conv1."),
        (r"^pre\.1\.", "bn1."),
        (r"^stage(\d)\.", r"layer\1."),
        (r"^(layer.*)\.residual\.(\d)\.", _step),
        (r"^(layer.*)\.excitation\.0\.", r"\1.se.fc1."),
        (r"^(layer.*)\.excitation\.2\.", r"\1.se.fc2."),
        (r"^(layer.*)\.shortcut\.", r"\1.downsample."),
        (r"^linear\.", "fc."),
    )


def _pytorch_cifar(state: State) -> Names | None:
    """SE is `fc1`/`fc2` of the block itself. pytorch_resnet_cifar10 has the same names, with shortcuts of option A."""
    if not {"conv1.weight", "layer1.0.conv1.weight", "linear.weight"} <= state.keys():
        return None
    return _renamed(state, (r"^(layer.*)\.shortcut\.", r"\1.downsample."), (r"^linear\.", "fc."))


def _cadene(state: State) -> Names | None:
    """timm's `legacy_se*` nets have these names; a state that fits such a net is loaded without a layout."""
    if not {"layer0.conv1.weight", "layer1.0.conv1.weight", "last_linear.weight"} <= state.keys():
        return None
    raise DifferentFunctionError(
        "its max-pool rounds up and does not pad, and the bottlenecks of its SE-ResNets stride in the first 1 x 1 "
        "convolution; load it into one of timm's legacy_se* nets"
    )


def _moskomule(state: State) -> Names | None:
    if "layer1.0.se.fc.0.weight" not in state or "layer1.0.se.fc.0.bias" in state:
        return None
    return _torchvision(state)


def _torchvision(state: State) -> Names | None:
    if not {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight"} <= state.keys():
        return None
    return _renamed(state)


# The first layout that knows a state reads the state.
LAYOUTS = (
    CheckpointLayout("pytorchcv", _pytorchcv),
    CheckpointLayout("pytorch-cifar100's ResNet", _pytorch_cifar100),
    CheckpointLayout("pytorch-cifar100's SE-ResNet", _pytorch_cifar100_se, relu_before_attn=True),
    CheckpointLayout("pytorch-cifar", _pytorch_cifar),
    CheckpointLayout("Cadene's SENets", _cadene),
    CheckpointLayout("moskomule/senet.pytorch", _moskomule),
    CheckpointLayout("a ResNet with torchvision's names", _torchvision, fixed=False),
    CheckpointLayout("the model's own names", lambda state: _renamed(state), fixed=False),
)


def _step(match: re.Match[str]) -> str:
    """The name in a block of a step of an nn.Sequential of convolution, norm, ReLU, convolution, ..."""
    number, kind = divmod(int(match[2]), 3)
    return f"{match[1]}.{'bn' if kind else 'conv'}{number + 1}."


def _renamed(state: State, *rules: tuple[str, str | Callable[[re.Match[str]], str]]) -> Names:
    names: Names = {}
    for key in state:
        name = key
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        names[key if name in names else name] = key
    return names
