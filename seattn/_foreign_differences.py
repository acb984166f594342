"""What a checkpoint's net computes otherwise than the model, though every tensor has its place."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from seattn.blocks.excitation import excitation_of
from seattn.models.checkpoints.fit import Pair, Shapes
from seattn.models.checkpoints.layouts import CheckpointLayout, DifferentFunctionError
from seattn.ops._tail.excitation import Excitation

_EPS = 1e-5  # of nn.BatchNorm2d, and of every project with a fixed layout


def check_blocks(theirs: Shapes, ours: Shapes) -> None:
    """Refuse blocks that the shapes under timm's names show to be others: pre-activation, or another shortcut.

    Raises:
        DifferentFunctionError: naming the difference and the block.
    """
    for block in [name.removesuffix(".conv1.weight") for name in ours if name.endswith(".conv1.weight")]:
        conv, norm = theirs.get(f"{block}.conv1.weight"), theirs.get(f"{block}.bn1.weight")
        if conv is None or norm is None:
            continue
        if norm[0] == conv[1] != conv[0]:
            raise DifferentFunctionError(f"its norms stand before the convolutions (pre-activation), as {block} shows")
        if not _same_conv(block, theirs, ours):
            continue  # another architecture: the keys that do not fit say it
        there, here = (
            [len(shapes.get(f"{block}.downsample.{step}.weight", ())) for step in (0, 1)] for shapes in (theirs, ours)
        )
        if there == here or not any(here):
            continue
        if not any(name.startswith(f"{block}.downsample.") for name in theirs):
            raise DifferentFunctionError(
                f"its shortcut in {block} has no weights (option A or a pooling), here a convolution"
            )
        if there == [4, 0] and here == [4, 1]:
            raise DifferentFunctionError(f"its projection in {block} has no batch norm (pre-activation), here it has")
        if 4 in (there[1], here[1]):
            where = ("there", "here") if there[1] == 4 else ("here", "there")
            raise DifferentFunctionError(
                f"an average pooling stands before strided projections {where[0]}, not {where[1]}"
            )


def _same_conv(block: str, theirs: Shapes, ours: Shapes) -> bool:
    key = f"{block}.conv1.weight"
    return theirs.get(key) == ours.get(key)


def check_attention(
    theirs: Shapes, ours: Shapes, matched: Iterable[tuple[Pair, Pair]], model: nn.Module, layout: CheckpointLayout
) -> None:
    """Refuse a squeeze-excite on other channels, with another gate or activation, or with a ReLU before it.

    Raises:
        DifferentFunctionError: naming the difference and the module.
    """
    for there, here in matched:
        if there.channels != here.channels and _same_conv(there.module.rpartition(".")[0], theirs, ours):
            raise DifferentFunctionError(
                f"its squeeze-excite in {there.module} gates {there.channels} channels, here {here.channels}"
            )
        gate = "hard_sigmoid" if there.hard else "sigmoid" if layout.fixed else None
        found = excitation_of(model.get_submodule(here.module))
        if isinstance(found, Excitation) and gate is not None:
            for what, expected, name in (("gate", gate, found.gate), ("activation", "relu", found.act)):
                if name != expected:
                    raise DifferentFunctionError(f"the {what} of its squeeze-excite is {expected}, here {name}")
        if layout.fixed and layout.relu_before_attn != _after_relu(model, here.module):
            raise DifferentFunctionError(
                "a ReLU stands between its last norm and its squeeze-excite, here none (a block whose se is "
                "nn.Sequential(nn.ReLU(), se) has one)"
                if layout.relu_before_attn
                else "no ReLU stands between its last norm and its squeeze-excite, here one"
            )


def _after_relu(model: nn.Module, path: str) -> bool:
    parent, _, step = path.rpartition(".")
    steps = model.get_submodule(parent)
    return isinstance(steps, nn.Sequential) and step.isdigit() and any(type(m) is nn.ReLU for m in steps[: int(step)])


def check_model(model: nn.Module) -> None:
    """Refuse a model that differs from the ResNets of every fixed layout in what no key shows.

    Raises:
        DifferentFunctionError: naming the difference and the module.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.eps != _EPS:
            raise DifferentFunctionError(f"its norms have eps {_EPS:g}, here {name} has {module.eps:g}")
        if isinstance(getattr(module, "conv1", None), nn.Conv2d) and hasattr(module, "conv2"):
            _check_block(name, module)
    _check_stem(model)


def _check_block(name: str, block: Any) -> None:
    for act in ("act1", "act2", "act3"):
        here = getattr(block, act, None)
        if here is not None and type(here) is not nn.ReLU:
            raise DifferentFunctionError(f"its activations are ReLU, here {name}.{act} is {type(here).__name__}")
    if hasattr(block, "conv3") and block.conv1.stride != (1, 1):
        raise DifferentFunctionError(f"its bottlenecks stride in the 3 x 3 convolution, here {name} in the first 1 x 1")


def _check_stem(model: Any) -> None:
    conv, pool = getattr(model, "conv1", None), getattr(model, "maxpool", None)
    if not isinstance(conv, nn.Conv2d):
        return  # a stem of other names, whose keys do not fit
    small = conv.kernel_size == (3, 3)
    if conv.stride != ((1, 1) if small else (2, 2)):
        raise DifferentFunctionError(f"its stem has stride {1 if small else 2}, here {conv.stride[0]}")
    if small != (pool is None or isinstance(pool, nn.Identity)):
        raise DifferentFunctionError(
            "its stem has no max-pool, here one" if small else "a max-pool ends its stem, here none"
        )
    if isinstance(pool, nn.MaxPool2d) and (pool.kernel_size, pool.padding, pool.ceil_mode) != (3, 1, False):
        raise DifferentFunctionError("the max-pool of its stem is 3 x 3 with padding 1 and rounds down, here another")
