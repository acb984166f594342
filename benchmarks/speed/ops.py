"""Operators: the tails of residual blocks and attention alone, against timm's modules, addition and ReLU.

Both sides hold the same weights. Batch norm is in training, in both modes; `forward` wants no gradients.
Shapes: N images, C channels, H x W pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import EcaModule, SEModule
from timm.layers.cbam import ChannelAttn, SpatialAttn
from torch import Tensor, nn

from benchmarks.speed.timing import DTYPES, FORMATS, Case, Plan, Work
from seattn import ops

QUICK_SHAPES = ((2, 16, 8, 8), (3, 32, 4, 4))
CPU_SHAPES = (
    (32, 64, 32, 32),
    (128, 16, 32, 32),
    (128, 32, 16, 16),
    (128, 64, 8, 8),
    (32, 128, 16, 16),
    (32, 256, 8, 8),
    (32, 512, 4, 4),
    (32, 512, 7, 7),
    (32, 256, 14, 14),
    (32, 2048, 7, 7),
)
GPU_SHAPES = (  # of ResNet-18 for CIFAR at 1,024 images and of ResNet-50 at 224 x 224 and 256
    (1024, 64, 32, 32),
    (1024, 128, 16, 16),
    (1024, 256, 8, 8),
    (1024, 512, 4, 4),
    (256, 256, 56, 56),
    (256, 512, 28, 28),
    (256, 1024, 14, 14),
    (256, 2048, 7, 7),
)
Function = Callable[[Tensor, Tensor], Tensor]  # (x, shortcut) -> y, all (N, C, H, W)


@dataclass(frozen=True)
class Pair:
    """One operation done twice, with the same weights."""

    ours: Function
    timm: Function
    parameters: list[Tensor]


@dataclass(frozen=True)
class Op:
    """What is timed.

    Args:
        make: from C and, so that weights fit, an example of the input.
        forward, backward: passes over the input's size that each needs at least: tensors of that size read or written,
            each once.
        compiled: modes in which timm's is timed under torch.compile too, where that is asked for: those of the bars.
    """

    make: Callable[[int, Tensor], Pair]
    forward: int
    backward: int
    takes_shortcut: bool = True
    compiled: tuple[str, ...] = ()

    @property
    def urgent(self) -> bool:
        return bool(self.compiled)


def _se_weights(se: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return se.fc1.weight.flatten(1), se.fc1.bias, se.fc2.weight.flatten(1), se.fc2.bias


def _norm(channels: int, like: Tensor) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, device=like.device)  # fp32, as under autocast
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return norm


def _norm_args(norm: nn.BatchNorm2d) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor]:
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)  # the module counts, so we do
    return norm.running_mean, norm.running_var, norm.weight, norm.bias


def _add_relu(x: Tensor, shortcut: Tensor) -> Tensor:
    x += shortcut  # in place, as timm's blocks do
    return x.relu_()


def _se(channels: int, like: Tensor) -> Pair:
    se = SEModule(channels, device=like.device, dtype=like.dtype)
    return Pair(
        lambda x, _: ops.squeeze_excite(x, *_se_weights(se)),
        lambda x, _: se(x),
        list(se.parameters()),
    )


def _se_tail(channels: int, like: Tensor) -> Pair:
    se = SEModule(channels, device=like.device, dtype=like.dtype)
    return Pair(
        lambda x, shortcut: ops.squeeze_excite_add_act(x, shortcut, *_se_weights(se)),
        lambda x, shortcut: _add_relu(se(x), shortcut),
        list(se.parameters()),
    )


def _bn_se_tail(channels: int, like: Tensor) -> Pair:
    norm, se = _norm(channels, like), SEModule(channels, device=like.device, dtype=like.dtype)
    return Pair(
        lambda x, shortcut: ops.batch_norm_squeeze_excite_add_act(
            x, shortcut, *_norm_args(norm), *_se_weights(se), training=True
        ),
        lambda x, shortcut: _add_relu(se(norm(x)), shortcut),
        [*norm.parameters(), *se.parameters()],
    )


def _eca_tail(channels: int, like: Tensor) -> Pair:
    eca = EcaModule(channels, device=like.device, dtype=like.dtype)
    return Pair(
        lambda x, shortcut: ops.efficient_channel_attn_add_act(x, shortcut, eca.conv.weight.flatten()),
        lambda x, shortcut: _add_relu(eca(x), shortcut),
        list(eca.parameters()),
    )


def _bn_eca_tail(channels: int, like: Tensor) -> Pair:
    norm, eca = _norm(channels, like), EcaModule(channels, device=like.device, dtype=like.dtype)
    return Pair(
        lambda x, shortcut: ops.batch_norm_efficient_channel_attn_add_act(
            x, shortcut, *_norm_args(norm), eca.conv.weight.flatten(), training=True
        ),
        lambda x, shortcut: _add_relu(eca(norm(x)), shortcut),
        [*norm.parameters(), *eca.parameters()],
    )


def _plain_tail(channels: int, like: Tensor) -> Pair:
    norm = _norm(channels, like)
    return Pair(
        lambda x, shortcut: ops.batch_norm_add_act(x, shortcut, *_norm_args(norm), training=True),
        lambda x, shortcut: _add_relu(norm(x), shortcut),
        list(norm.parameters()),
    )


def _cbam_channel(channels: int, like: Tensor) -> Pair:
    attn = ChannelAttn(channels, device=like.device, dtype=like.dtype)
    return Pair(
        lambda x, _: ops.cbam_channel_gate(x, *_se_weights(attn)),
        lambda x, _: attn(x),
        list(attn.parameters()),
    )


def _cbam_spatial(channels: int, like: Tensor) -> Pair:
    attn = SpatialAttn(device=like.device, dtype=like.dtype)
    norm: nn.BatchNorm2d = attn.conv.bn.float()
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return Pair(
        lambda x, _: ops.cbam_spatial_gate(
            x, attn.conv.conv.weight, *_norm_args(norm), training=True, eps=norm.eps, max_first=False
        ),
        lambda x, _: attn(x),
        list(attn.parameters()),
    )


# Forward: read x (the norm's statistics once more before it) and the shortcut, write y. Backward of a tail: read dy, y
# and x, write g and dx; with a norm, read x and g again. Of attention alone: read dy and x, write dx.
OPS = {
    "se_tail": Op(_se_tail, 3, 5, compiled=("forward",)),
    "bn_se_tail": Op(_bn_se_tail, 4, 7, compiled=("forward_backward",)),
    "se": Op(_se, 2, 3, takes_shortcut=False),
    "eca_tail": Op(_eca_tail, 3, 5),
    "bn_eca_tail": Op(_bn_eca_tail, 4, 7),
    "plain_tail": Op(_plain_tail, 4, 7),
    "cbam_channel": Op(_cbam_channel, 2, 3, takes_shortcut=False),
    "cbam_spatial": Op(_cbam_spatial, 2, 3, takes_shortcut=False),
}


def cases(plan: Plan) -> Iterator[Case]:
    """Every op in both modes and layouts; fp32 on a CPU with bf16 for the two on which bars stand, bf16 on a GPU."""
    for name, op in OPS.items():
        for shape in plan.pick(QUICK_SHAPES, CPU_SHAPES, GPU_SHAPES):
            for dtype in ("bfloat16",) if plan.cuda else ("float32", "bfloat16") if op.urgent else ("float32",):
                for memory_format in FORMATS:
                    for mode in ("forward", "forward_backward"):
                        main = dtype == plan.pick("float32", "float32", "bfloat16")
                        yield Case(
                            "op",
                            name,
                            mode,
                            shape,
                            dtype,
                            memory_format,
                            _Make(plan, op, shape, dtype, memory_format, mode),
                            passes=op.forward + (op.backward if mode == "forward_backward" else 0),
                            urgent=op.urgent and main and (memory_format == "channels_last" or not plan.cuda),
                            rounds=plan.pick(2, 11 if op.urgent else 7, 21),
                            seconds=plan.pick(0.0, 0.8 if op.urgent and main else 0.15, 0.15),
                        )


@dataclass(frozen=True)
class _Make:
    plan: Plan
    op: Op
    shape: tuple[int, ...]
    dtype: str
    memory_format: str
    mode: str

    def __call__(self) -> dict[str, Work]:
        torch.manual_seed(0)
        like = torch.empty(0, device=self.plan.device, dtype=DTYPES[self.dtype])
        pair = self.op.make(self.shape[1], like)
        here = FORMATS[self.memory_format]
        works = {
            "seattn": self._work(pair.ours, pair, like, here),
            "timm_eager": self._work(pair.timm, pair, like, here),
        }
        if self.plan.compiled and self.memory_format == "channels_last" and self.mode in self.op.compiled:
            torch._dynamo.reset()  # its limit is on compilations of one function, and every case brings another
            works["timm_compile"] = self._work(torch.compile(pair.timm, dynamic=False), pair, like, here)
        if self.memory_format == "contiguous":
            works["timm_channels_last"] = self._work(pair.timm, pair, like, torch.channels_last)
        return works

    def _work(self, function: Function, pair: Pair, like: Tensor, memory_format: torch.memory_format) -> Work:
        x, shortcut, dy = (
            torch.randn(self.shape, device=like.device, dtype=like.dtype).contiguous(memory_format=memory_format)
            for _ in range(3)
        )

        def forward() -> Tensor:
            with torch.no_grad():
                return function(x, shortcut)

        if self.mode == "forward":
            return forward
        wanted = [x, shortcut, *pair.parameters] if self.op.takes_shortcut else [x, *pair.parameters]
        for tensor in wanted:
            tensor.requires_grad_()
        return lambda: torch.autograd.grad(function(x, shortcut), wanted, dy)
