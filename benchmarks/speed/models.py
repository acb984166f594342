"""Whole nets: a training step (forward, loss, backward, step of SGD) and inference, against the net of timm layers.

A training step of an SE net is also timed beside the net without attention: `plain` with our tails, `plain_timm_eager`
with timm's. They show the time of an SE that costs nothing. On a CPU, `convolutions` is the plain net without norms and
activations: no operator between the convolutions can make a step faster than that. On a CPU these nets are in a group
of their own, training_step_parts: memory that other nets leave in the allocator changes times by a tenth, and a user's
process has one net.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import nn

import seattn
from benchmarks.speed.timing import FORMATS, Case, Plan, Work
from benchmarks.speed.twins import check_equal, timm_twin
from seattn.core.device import cpu_has_bfloat16

Nets = tuple[nn.Module, nn.Module]  # ours or accelerated; timm's with the same weights


def _cifar(name: str) -> Nets:
    ours = timm.create_model(name, zero_init_last=False)  # else every block starts as an identity
    return ours, timm_twin(ours)


def _accelerated(name: str) -> Nets:
    timm_net = timm.create_model(name)
    for module in timm_net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm starts the last of each block at 0: blocks would be identities
    ours = copy.deepcopy(timm_net)
    seattn.accelerate(ours, verbose=False)
    return ours, timm_net


def _bare(net: nn.Module) -> nn.Module:
    """A copy of `net` without its norms and activations; convolutions, shortcuts and classifier stay."""
    bare = copy.deepcopy(net)
    for name, module in list(bare.named_modules()):
        if isinstance(module, nn.BatchNorm2d | nn.ReLU):
            bare.set_submodule(name, nn.Identity())
    return bare


@dataclass(frozen=True)
class Net:
    """A net and its batch.

    Args:
        plain: the name of the same net without attention, where that is timed beside it.
        bars: on a CPU, bars need this net.
    """

    name: str
    make: Callable[[str], Nets]
    shape: tuple[int, int, int, int]
    plain: str | None = None
    modes: tuple[str, ...] = ("training_step", "inference")
    bars: bool = False


INFERENCE = ("inference",)
LAST = "channels_last"
PARTS = "training_step_parts"
QUICK = (Net("se_resnet20_cifar", _cifar, (2, 3, 32, 32), "resnet20_cifar"),)
CPU = (
    Net("se_resnet20_cifar", _cifar, (128, 3, 32, 32), "resnet20_cifar", bars=True),
    Net("se_resnet18_cifar", _cifar, (32, 3, 32, 32), "resnet18_cifar", bars=True),
    Net("resnet18_cifar", _cifar, (32, 3, 32, 32)),
    # With single images the ops are so small that the time of Python between them shows.
    Net("se_resnet20_cifar", _cifar, (1, 3, 32, 32), modes=INFERENCE, bars=True),
    Net("eca_resnet20_cifar", _cifar, (1, 3, 32, 32), modes=INFERENCE),
    Net("efficientnet_b0", _accelerated, (1, 3, 224, 224), modes=INFERENCE),
    Net("seresnet50", _accelerated, (1, 3, 224, 224), modes=INFERENCE),
    Net("efficientnet_b0", _accelerated, (8, 3, 224, 224), bars=True),
    Net("seresnet50", _accelerated, (8, 3, 224, 224), bars=True),
)
GPU = (
    Net("se_resnet18_cifar", _cifar, (1024, 3, 32, 32), "resnet18_cifar"),
    Net("seresnet50", _accelerated, (256, 3, 224, 224), "resnet50"),
    Net("se_resnet20_cifar", _cifar, (128, 3, 32, 32), "resnet20_cifar"),
    Net("resnet18_cifar", _cifar, (1024, 3, 32, 32)),
    Net("resnet50", _accelerated, (256, 3, 224, 224)),
)


def cases(plan: Plan) -> Iterator[Case]:
    """Every net in training and inference: on a CPU in both layouts, and under autocast too if the CPU has bf16."""
    dtypes = ("autocast_bfloat16",) if plan.cuda else ("float32", "autocast_bfloat16")
    with_bars = ("se_resnet20_cifar", "se_resnet18_cifar", "seresnet50")  # of a GPU
    for net in plan.pick(QUICK, CPU, GPU):
        for dtype in dtypes if plan.cuda or cpu_has_bfloat16() else dtypes[:1]:
            for memory_format in ("channels_last",) if plan.cuda else FORMATS:
                for mode in net.modes if plan.cuda or net.plain is None else (*net.modes, PARTS):
                    if plan.cuda:
                        bar = mode == "training_step" and net.name in with_bars
                    else:
                        bar = net.bars and memory_format == LAST
                    many = mode == PARTS or net.shape[0] == 1
                    compiles = plan.compiled and mode != PARTS and memory_format == LAST
                    for compiled in (False, True) if compiles else (False,):
                        yield Case(
                            "model",
                            net.name,
                            mode,
                            net.shape,
                            dtype,
                            memory_format,
                            partial(_works, net, compiled),
                            urgent=bar and not (compiled and (plan.cuda or net.plain is None)),
                            rounds=plan.pick(2, 15 if bar or many else 5, 15),  # times vary by some 5 %
                            seconds=plan.pick(0.0, 1.5, 2.0),
                            graphs=net.shape[-1] == 32,  # four graphs would keep the activations of four large nets
                        )


def _works(net: Net, compiled: bool, plan: Plan, case: Case) -> dict[str, Work]:
    """The nets of a case; `compiled`: also both nets under torch.compile, in a case without the plain nets.

    Compiling takes a minute, which must not delay the cases that bars need.
    """
    torch.manual_seed(0)
    nets = dict(zip(("seattn", "timm_eager"), _nets(net.make, net.name, plan, case), strict=True))
    if net.plain and case.mode == ("training_step" if plan.cuda else PARTS) and not compiled:
        nets["plain"], nets["plain_timm_eager"] = _nets(net.make, net.plain, plan, case)
        if not plan.cuda:
            nets["convolutions"] = _bare(nets["plain_timm_eager"])
    works = {name: _work(module, plan, case) for name, module in nets.items()}
    if case.mode == "inference":
        folded = copy.deepcopy(nets["seattn"])  # in evaluation mode and in the case's layout
        works["seattn_folded"] = _work(seattn.accelerate(folded, fold=True, verbose=False), plan, case)
    if compiled:
        torch._dynamo.reset()
        for name, module in zip(("seattn_compile", "timm_compile"), _nets(net.make, net.name, plan, case), strict=True):
            module.compile()
            works[name] = _work(module, plan, case)
    has_parts = net.plain and case.mode == "training_step"  # of a CPU; a GPU times one layout
    if case.memory_format == "contiguous" and not (plan.quick or compiled or has_parts):
        _, timm_net = _nets(net.make, net.name, plan, case)
        works["timm_channels_last"] = _work(timm_net, plan, replace(case, memory_format="channels_last"))
    return works


def _nets(make: Callable[[str], Nets], name: str, plan: Plan, case: Case) -> Nets:
    """Both nets on the device, compared once on a small batch."""
    ours, timm_net = make(name)
    ours.to(plan.device)
    timm_net.to(plan.device)
    check_equal(ours, timm_net, torch.randn(8, *case.shape[1:], device=plan.device))
    return ours, timm_net


def _work(net: nn.Module, plan: Plan, case: Case) -> Work:
    memory_format = FORMATS[case.memory_format]
    net.to(memory_format=memory_format)
    x = torch.randn(case.shape, device=plan.device).contiguous(memory_format=memory_format)  # (B, 3, H, W)
    # Without its cache, which a captured graph must not fill, autocast still casts each weight only once.
    autocast = torch.autocast(plan.device.type, torch.bfloat16, enabled=case.dtype != "float32", cache_enabled=False)
    if case.mode == "inference":
        net.eval()

        def infer() -> torch.Tensor:
            with torch.inference_mode(), autocast:
                logits: torch.Tensor = net(x)
            return logits

        return infer
    net.train()
    target = torch.randint(0, 10, case.shape[:1], device=plan.device)
    # A learning rate of 0 costs the same as any other, and keeps the numbers of a net without norms finite.
    optimizer = create_optimizer_v2(net, "sgd", lr=0.0, weight_decay=5e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with autocast:
            loss = F.cross_entropy(net(x), target)
        loss.backward()
        optimizer.step()

    return step
