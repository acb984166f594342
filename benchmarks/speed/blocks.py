"""Residual blocks with their convolutions, as they are in the nets, against the same blocks of timm.

The case is the attention and the kind of block: se_basic, basic, se_bottleneck, bottleneck. Batch norm uses the batch's
statistics.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial

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


@lru_cache(maxsize=4)  # the blocks of one net are timed one after another
def _net(name: str) -> nn.Module:
    net: nn.Module = timm.create_model(name, zero_init_last=False)  # else every block starts as an identity
    return net


def _stages(net: str, images: int, widths: tuple[int, ...], side: int) -> tuple[Block, ...]:
    """One block of each stage; the first has images of that side, each later one half of the side before it."""
    sides = [side >> i for i in range(len(widths))]
    shapes = [(images, width, side, side) for width, side in zip(widths, sides, strict=True)]
    return tuple(Block(net, f"layer{i}", shape) for i, shape in enumerate(shapes, start=1))


QUICK = (*_stages("resnet20_cifar", 2, (16,), 8), *_stages("resnet50_cifar", 2, (256,), 4))
CPU = (
    *_stages("resnet20_cifar", 128, (16, 32, 64), 32),
    *_stages("resnet18_cifar", 32, (64, 128, 256, 512), 32),
    *_stages("resnet50_cifar", 8, (256, 512, 1024, 2048), 56),
)
GPU = (
    *_stages("resnet18_cifar", 1024, (64, 128, 256, 512), 32),
    *_stages("resnet50_cifar", 256, (256, 512, 1024, 2048), 56),
)


def cases(plan: Plan) -> Iterator[Case]:
    """Every block in both modes: fp32 in both layouts on a CPU, bf16 in channels_last on a GPU."""
    for prefix in ("se_", ""):
        for block in plan.pick(QUICK, CPU, GPU):
            for memory_format in ("channels_last",) if plan.cuda else FORMATS:
                for mode in ("forward", "forward_backward"):
                    yield Case(
                        "block",
                        prefix + ("bottleneck" if block.net == "resnet50_cifar" else "basic"),
                        mode,
                        block.shape,
                        plan.pick("float32", "float32", "bfloat16"),
                        memory_format,
                        partial(_works, block, prefix),
                        rounds=plan.pick(2, 7, 21),
                        seconds=plan.pick(0.0, 0.3, 0.15),
                    )


def _works(block: Block, prefix: str, plan: Plan, case: Case) -> dict[str, Work]:
    torch.manual_seed(0)
    ours = block.build(prefix).to(plan.device)
    eager = timm_twin(ours)
    check_equal(ours, eager, torch.randn(2, *case.shape[1:], device=plan.device))
    works = {"seattn": _work(ours, plan, case), "timm_eager": _work(eager, plan, case)}
    if plan.compiled and case.memory_format == "channels_last" and case.mode == "forward_backward":
        torch._dynamo.reset()
        compiled = {"seattn_compile": copy.deepcopy(ours), "timm_compile": timm_twin(ours)}
        if plan.cuda:  # its minutes are for what the bars need
            del compiled["seattn_compile"]
        for name, module in compiled.items():
            module.compile(dynamic=False)
            works[name] = _work(module, plan, case)
    if case.memory_format == "contiguous":
        works["timm_channels_last"] = _work(timm_twin(ours), plan, replace(case, memory_format="channels_last"))
    return works


def _work(block: nn.Module, plan: Plan, case: Case) -> Work:
    block.to(memory_format=FORMATS[case.memory_format])
    if case.dtype != "float32":  # norms stay in fp32, as under autocast
        for module in block.modules():
            if not isinstance(module, nn.BatchNorm2d):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(DTYPES[case.dtype])
    x, dy = case.random(plan.device, 2)
    return case.pass_through(lambda: block(x), [x, *block.parameters()], dy)
