"""Residual blocks as they stand in the nets, with their convolutions, against the same blocks of timm's.

The case is the attention and the kind of block: se_basic, basic, se_bottleneck, bottleneck. Batch norm is in training.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import timm
import torch
from torch import nn

import seattn  # noqa: F401  # registers the nets with timm
from benchmarks.speed.timing import DTYPES, FORMATS, Case, Plan, Work
from benchmarks.speed.twins import check_equal, timm_twin


@dataclass(frozen=True)
class Block:
    """A block that keeps the shape: the second of a stage, of a net with or without the prefix se_."""

    net: str
    stage: str
    shape: tuple[int, int, int, int]

    def build(self, prefix: str) -> nn.Module:
        stage = _net(prefix + self.net).get_submodule(self.stage)
        return copy.deepcopy(stage.get_submodule("1"))


@lru_cache(maxsize=4)  # of each net one block after another is timed
def _net(name: str) -> nn.Module:
    net: nn.Module = timm.create_model(name, zero_init_last=False)  # else every block starts as an identity
    return net


QUICK = (
    Block("resnet20_cifar", "layer1", (2, 16, 8, 8)),
    Block("resnet50_cifar", "layer1", (2, 256, 4, 4)),
)
CPU = (
    Block("resnet20_cifar", "layer1", (128, 16, 32, 32)),
    Block("resnet20_cifar", "layer2", (128, 32, 16, 16)),
    Block("resnet20_cifar", "layer3", (128, 64, 8, 8)),
    Block("resnet18_cifar", "layer1", (32, 64, 32, 32)),
    Block("resnet18_cifar", "layer2", (32, 128, 16, 16)),
    Block("resnet18_cifar", "layer3", (32, 256, 8, 8)),
    Block("resnet18_cifar", "layer4", (32, 512, 4, 4)),
    Block("resnet50_cifar", "layer1", (8, 256, 56, 56)),
    Block("resnet50_cifar", "layer2", (8, 512, 28, 28)),
    Block("resnet50_cifar", "layer3", (8, 1024, 14, 14)),
    Block("resnet50_cifar", "layer4", (8, 2048, 7, 7)),
)
GPU = (
    Block("resnet18_cifar", "layer1", (1024, 64, 32, 32)),
    Block("resnet18_cifar", "layer2", (1024, 128, 16, 16)),
    Block("resnet18_cifar", "layer3", (1024, 256, 8, 8)),
    Block("resnet18_cifar", "layer4", (1024, 512, 4, 4)),
    Block("resnet50_cifar", "layer1", (256, 256, 56, 56)),
    Block("resnet50_cifar", "layer2", (256, 512, 28, 28)),
    Block("resnet50_cifar", "layer3", (256, 1024, 14, 14)),
    Block("resnet50_cifar", "layer4", (256, 2048, 7, 7)),
)


def cases(plan: Plan) -> Iterator[Case]:
    """Every block in both modes: fp32 in both layouts on a CPU, bf16 in channels_last on a GPU."""
    dtype = plan.pick("float32", "float32", "bfloat16")
    for prefix in ("se_", ""):
        for block in plan.pick(QUICK, CPU, GPU):
            kind = prefix + ("bottleneck" if block.net == "resnet50_cifar" else "basic")
            for memory_format in ("channels_last",) if plan.cuda else FORMATS:
                for mode in ("forward", "forward_backward"):
                    make = _Make(plan, block, prefix, dtype, memory_format, mode)
                    yield Case(
                        "block",
                        kind,
                        mode,
                        block.shape,
                        dtype,
                        memory_format,
                        make,
                        rounds=plan.pick(2, 7, 21),
                        seconds=plan.pick(0.0, 0.3, 0.15),
                    )


@dataclass(frozen=True)
class _Make:
    plan: Plan
    block: Block
    prefix: str
    dtype: str
    memory_format: str
    mode: str

    def __call__(self) -> dict[str, Work]:
        torch.manual_seed(0)
        ours = self.block.build(self.prefix).to(self.plan.device)
        theirs = timm_twin(ours)
        small = torch.randn(2, *self.block.shape[1:], device=self.plan.device)
        check_equal(ours, theirs, small)
        works = {
            "seattn": self._work(ours, self.memory_format),
            "timm_eager": self._work(theirs, self.memory_format),
        }
        if self.plan.compiled and self.prefix and self.mode == "forward_backward":
            torch._dynamo.reset()
            compiled = timm_twin(ours)
            compiled.compile(dynamic=False)
            works["timm_compile"] = self._work(compiled, self.memory_format)
        if self.memory_format == "contiguous":
            works["timm_channels_last"] = self._work(timm_twin(ours), "channels_last")
        return works

    def _work(self, block: nn.Module, memory_format: str) -> Work:
        wanted_format = FORMATS[memory_format]
        block.to(memory_format=wanted_format)
        if self.dtype != "float32":  # norms stay in fp32, as under autocast
            for module in block.modules():
                if not isinstance(module, nn.BatchNorm2d):
                    for parameter in module.parameters(recurse=False):
                        parameter.data = parameter.data.to(DTYPES[self.dtype])
        x, dy = (
            torch.randn(self.block.shape, device=self.plan.device, dtype=DTYPES[self.dtype]).contiguous(
                memory_format=wanted_format
            )
            for _ in range(2)
        )

        def forward() -> torch.Tensor:
            with torch.no_grad():
                y: torch.Tensor = block(x)
            return y

        if self.mode == "forward":
            return forward
        wanted = [x.requires_grad_(), *block.parameters()]
        return lambda: torch.autograd.grad(block(x), wanted, dy)
