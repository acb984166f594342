"""Operators: the tails of residual blocks and attention alone, against timm's modules, addition and ReLU.

Both sides hold the same weights. Batch norm uses the batch's statistics in both modes; `forward` computes no gradients.
Shapes: N images, C channels, H x W pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from timm.layers import EcaModule, SEModule
from timm.layers.cbam import ChannelAttn, SpatialAttn
from torch import Tensor, nn

from benchmarks.speed.timing import DTYPES, FORMATS, Case, Plan, Work
from seattn import ops

Shape = tuple[int, int, int, int]
QUICK_SHAPES: tuple[Shape, ...] = ((2, 16, 8, 8), (3, 32, 4, 4))
CPU_SHAPES: tuple[Shape, ...] = (
    (32, 64, 32, 32),
    *((128, channels, side, side) for channels, side in ((16, 32), (32, 16), (64, 8))),
    *((32, channels, side, side) for channels, side in ((128, 16), (256, 8), (512, 4), (512, 7), (256, 14), (2048, 7))),
)
GPU_SHAPES: tuple[Shape, ...] = (  # of ResNet-18 for CIFAR at 1,024 images and of ResNet-50 at 224 x 224 and 256
    *((1024, channels, side, side) for channels, side in ((64, 32), (128, 16), (256, 8), (512, 4))),
    *((256, channels, side, side) for channels, side in ((256, 56), (512, 28), (1024, 14), (2048, 7))),
)
Function = Callable[[Tensor, Tensor], Tensor]  # (x, shortcut) -> y, all (N, C, H, W)
Weights = Callable[[Any], tuple[Tensor, ...]]  # the weights of timm's layer as our op takes them


@dataclass(frozen=True)
class Pair:
    """One operation by both libraries, with the same weights."""

    ours: Function
    timm: Function
    parameters: list[Tensor]


@dataclass(frozen=True)
class Op:
    """An operation to time.

    Args:
        make: builds the pair from C and an example of the input, whose device and dtype the weights get.
        forward, backward: the least number of passes over the input's size: tensors of that size read or written, each
            once.
        compiled: the modes in which timm's side also runs under torch.compile where that is asked for, and on a CPU
            ours too: those that bars need.
    """

    make: Callable[[int, Tensor], Pair]
    forward: int
    backward: int
    takes_shortcut: bool = True
    compiled: tuple[str, ...] = ()

    @property
    def urgent(self) -> bool:
        return bool(self.compiled)


def se_weights(se: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return se.fc1.weight.flatten(1), se.fc1.bias, se.fc2.weight.flatten(1), se.fc2.bias


def eca_weights(eca: EcaModule) -> tuple[Tensor]:
    return (eca.conv.weight.flatten(),)


def _norm(channels: int, like: Tensor) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, device=like.device)  # fp32, as under autocast
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return norm


def _norm_args(norm: nn.BatchNorm2d) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)  # timm's module counts batches, so our side does too
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


def _add_relu(x: Tensor, shortcut: Tensor) -> Tensor:
    x += shortcut  # in place, as timm's blocks do
    return x.relu_()


def alone(layer: type[nn.Module], op: str, weights: Weights) -> Callable[[int, Tensor], Pair]:
    """The `make` of an attention layer of timm and the op of that name in `seattn.ops`, with the layer's weights."""

    def make(channels: int, like: Tensor) -> Pair:
        attn = layer(channels, device=like.device, dtype=like.dtype)
        return Pair(lambda x, _: getattr(ops, op)(x, *weights(attn)), lambda x, _: attn(x), list(attn.parameters()))

    return make


def _tail(layer: type[nn.Module], op: str, weights: Weights) -> Callable[[int, Tensor], Pair]:
    """The `make` of attention, addition and ReLU."""

    def make(channels: int, like: Tensor) -> Pair:
        attn = layer(channels, device=like.device, dtype=like.dtype)
        return Pair(
            lambda x, shortcut: getattr(ops, op)(x, shortcut, *weights(attn)),
            lambda x, shortcut: _add_relu(attn(x), shortcut),
            list(attn.parameters()),
        )

    return make


def _norm_tail(layer: type[nn.Module], op: str, weights: Weights) -> Callable[[int, Tensor], Pair]:
    """The `make` of batch norm, attention, addition and ReLU."""

    def make(channels: int, like: Tensor) -> Pair:
        norm, attn = _norm(channels, like), layer(channels, device=like.device, dtype=like.dtype)
        return Pair(
            lambda x, shortcut: getattr(ops, op)(x, shortcut, *_norm_args(norm), *weights(attn), training=True),
            lambda x, shortcut: _add_relu(attn(norm(x)), shortcut),
            [*norm.parameters(), *attn.parameters()],
        )

    return make


def _plain_tail(channels: int, like: Tensor) -> Pair:
    norm = _norm(channels, like)
    return Pair(
        lambda x, shortcut: ops.batch_norm_add_act(x, shortcut, *_norm_args(norm), training=True),
        lambda x, shortcut: _add_relu(norm(x), shortcut),
        list(norm.parameters()),
    )


def _cbam_spatial(channels: int, like: Tensor) -> Pair:
    attn = SpatialAttn(device=like.device, dtype=like.dtype)
    norm: nn.BatchNorm2d = attn.conv.bn
    if like.dtype != torch.float32:  # fake tensors cannot be converted in place, and need not be
        norm.float()
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return Pair(
        lambda x, _: ops.cbam_spatial_gate(
            x, attn.conv.conv.weight, *_norm_args(norm), training=True, eps=norm.eps, max_first=False
        ),
        lambda x, _: attn(x),
        list(attn.parameters()),
    )


# Passes of a forward: read x (twice with a norm, for its statistics) and the shortcut, write y. Of a tail's backward:
# read dy, y and x, write g and dx; with a norm, read x and g again. Of attention alone: read dy and x, write dx.
OPS = {
    "se_tail": Op(
        _tail(SEModule, "squeeze_excite_add_act", se_weights), 3, 5, compiled=("forward", "forward_backward")
    ),
    "bn_se_tail": Op(
        _norm_tail(SEModule, "batch_norm_squeeze_excite_add_act", se_weights), 4, 7, compiled=("forward_backward",)
    ),
    "se": Op(alone(SEModule, "squeeze_excite", se_weights), 2, 3, takes_shortcut=False),
    "eca_tail": Op(_tail(EcaModule, "efficient_channel_attn_add_act", eca_weights), 3, 5),
    "bn_eca_tail": Op(_norm_tail(EcaModule, "batch_norm_efficient_channel_attn_add_act", eca_weights), 4, 7),
    "plain_tail": Op(_plain_tail, 4, 7),
    "cbam_channel": Op(alone(ChannelAttn, "cbam_channel_gate", se_weights), 2, 3, takes_shortcut=False),
    "cbam_spatial": Op(_cbam_spatial, 2, 3, takes_shortcut=False),
}


def cases(plan: Plan) -> Iterator[Case]:
    """Every op in both modes and layouts: fp32 on a CPU, with bf16 for the two ops that bars need; bf16 on a GPU."""
    for name, op in OPS.items():
        for shape in plan.pick(QUICK_SHAPES, CPU_SHAPES, GPU_SHAPES):
            for dtype in ("bfloat16",) if plan.cuda else ("float32", "bfloat16") if op.urgent else ("float32",):
                for memory_format in FORMATS:
                    for mode in ("forward", "forward_backward"):
                        urgent = op.urgent and dtype == plan.pick("float32", "float32", "bfloat16")
                        yield Case(
                            "op",
                            name,
                            mode,
                            shape,
                            dtype,
                            memory_format,
                            partial(_works, op),
                            passes=op.forward + (op.backward if mode == "forward_backward" else 0),
                            urgent=urgent and (memory_format == "channels_last" or not plan.cuda),
                            rounds=plan.pick(2, 11 if op.urgent else 7, 21),
                            seconds=plan.pick(0.0, 0.8 if urgent else 0.15, 0.15),
                        )


def _works(op: Op, plan: Plan, case: Case) -> dict[str, Work]:
    torch.manual_seed(0)
    pair = op.make(case.shape[1], torch.empty(0, device=plan.device, dtype=DTYPES[case.dtype]))

    def work(function: Function, memory_format: str) -> Work:
        x, shortcut, dy = replace(case, memory_format=memory_format).random(plan.device, 3)
        inputs = [x, shortcut] if op.takes_shortcut else [x]
        return case.pass_through(lambda: function(x, shortcut), [*inputs, *pair.parameters], dy)

    works = {"seattn": work(pair.ours, case.memory_format), "timm_eager": work(pair.timm, case.memory_format)}
    if plan.compiled and case.memory_format == "channels_last" and case.mode in op.compiled:
        torch._dynamo.reset()  # its limit is on compilations of one function, and every case adds another
        works["timm_compile"] = work(torch.compile(pair.timm, dynamic=False), case.memory_format)
        if not plan.cuda:  # whose minutes are for what the bars need
            works["seattn_compile"] = work(torch.compile(pair.ours, dynamic=False), case.memory_format)
    if case.memory_format == "contiguous":
        works["timm_channels_last"] = work(pair.timm, "channels_last")
    return works
