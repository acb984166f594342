"""Whole nets: a training step (forward, loss, backward, step of SGD) and inference, against the same of timm's layers.

A training step of an SE net also runs beside the net without attention: `plain` with our tails, `plain_timm_eager` with
timm's. That is what an SE that costs nothing would give. On a CPU `convolutions` is the plain net without norms and
activations, and so the floor below which no operator between the convolutions can take a step. There these are a group
of their own, training_step_parts: what other nets leave in the allocator moves a CPU's times by a tenth, and a user's
process has one net.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import nn

import seattn
from benchmarks.speed.timing import FORMATS, Case, Plan, Work
from benchmarks.speed.twins import check_equal, timm_twin
from seattn.core.device import cpu_has_bfloat16

Nets = tuple[nn.Module, nn.Module]  # ours or accelerated, and timm's with the same weights


def _cifar(name: str) -> Nets:
    ours = timm.create_model(name, zero_init_last=False)  # else every block starts as an identity
    return ours, timm_twin(ours)


def _accelerated(name: str) -> Nets:
    theirs = timm.create_model(name)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # timm's ResNets have zeros in the last: blocks would start as identities
    ours = copy.deepcopy(theirs)
    seattn.accelerate(ours, verbose=False)
    return ours, theirs


def _bare(net: nn.Module) -> nn.Module:
    """A copy of `net` without its norms and activations; convolutions, shortcuts and classifier are left."""
    bare = copy.deepcopy(net)
    for name, module in list(bare.named_modules()):
        if isinstance(module, nn.BatchNorm2d | nn.ReLU):
            bare.set_submodule(name, nn.Identity())
    return bare


_INFERENCE = ("inference",)


@dataclass(frozen=True)
class Net:
    """A net and its batch; `plain` is the same without attention, if that is to run beside it."""

    name: str
    make: Callable[[str], Nets]
    shape: tuple[int, int, int, int]
    plain: str | None = None
    modes: tuple[str, ...] = ("training_step", *_INFERENCE)


QUICK = (Net("se_resnet20_cifar", _cifar, (2, 3, 32, 32), "resnet20_cifar"),)
CPU = (
    Net("se_resnet20_cifar", _cifar, (128, 3, 32, 32), "resnet20_cifar"),
    Net("se_resnet18_cifar", _cifar, (32, 3, 32, 32), "resnet18_cifar"),
    Net("resnet18_cifar", _cifar, (32, 3, 32, 32)),
    # Of single images the steps are so small that what Python does between them shows.
    Net("se_resnet20_cifar", _cifar, (1, 3, 32, 32), modes=_INFERENCE),
    Net("eca_resnet20_cifar", _cifar, (1, 3, 32, 32), modes=_INFERENCE),
    Net("efficientnet_b0", _accelerated, (1, 3, 224, 224), modes=_INFERENCE),
    Net("seresnet50", _accelerated, (1, 3, 224, 224), modes=_INFERENCE),
    Net("efficientnet_b0", _accelerated, (8, 3, 224, 224)),
    Net("seresnet50", _accelerated, (8, 3, 224, 224)),
)
GPU = (
    Net("se_resnet18_cifar", _cifar, (1024, 3, 32, 32), "resnet18_cifar"),
    Net("seresnet50", _accelerated, (256, 3, 224, 224), "resnet50"),
    Net("se_resnet20_cifar", _cifar, (128, 3, 32, 32), "resnet20_cifar"),
    Net("resnet18_cifar", _cifar, (1024, 3, 32, 32)),
    Net("resnet50", _accelerated, (256, 3, 224, 224)),
)


def cases(plan: Plan) -> Iterator[Case]:
    """Every net in training and inference: on a CPU in both layouts, and under autocast too if it has bf16."""
    for net in plan.pick(QUICK, CPU, GPU):
        for dtype in _dtypes(plan):
            for memory_format in ("channels_last",) if plan.cuda else FORMATS:
                for mode in _modes(plan, net):
                    bar = mode == "training_step" and (plan.cuda or dtype == "float32") and net.name in _on_bars(plan)
                    parts = mode == _PARTS
                    for compiled in (False, True) if plan.compiled and not parts else (False,):
                        yield Case(
                            "model",
                            net.name,
                            mode,
                            net.shape,
                            dtype,
                            memory_format,
                            _Make(plan, net, dtype, memory_format, mode, compiled),
                            urgent=bar and not compiled,
                            # times scatter by some 5 %
                            rounds=plan.pick(2, 31 if bar else 15 if parts or net.shape[0] == 1 else 5, 15),
                            seconds=plan.pick(0.0, 1.5, 2.0),
                            graphs=net.shape[-1] == 32,  # four graphs would keep the activations of four large nets
                        )


def _dtypes(plan: Plan) -> tuple[str, ...]:
    if plan.cuda:
        return ("autocast_bfloat16",)
    return ("float32", "autocast_bfloat16") if cpu_has_bfloat16() else ("float32",)


def _modes(plan: Plan, net: Net) -> tuple[str, ...]:
    return net.modes if plan.cuda or net.plain is None else (*net.modes, _PARTS)


def _on_bars(plan: Plan) -> tuple[str, ...]:
    return ("se_resnet20_cifar", "se_resnet18_cifar", *(("seresnet50",) if plan.cuda else ()))


_PARTS = "training_step_parts"


@dataclass(frozen=True)
class _Make:
    plan: Plan
    net: Net
    dtype: str
    memory_format: str
    mode: str
    compiled: bool  # beside timm's net under torch.compile alone: a minute of compiling must not hold up the bars

    def __call__(self) -> dict[str, Work]:
        torch.manual_seed(0)
        ours, theirs = self._nets(self.net.name, self.net.make)
        nets = {"seattn": ours, "timm_eager": theirs}
        if self.net.plain and self.mode == ("training_step" if self.plan.cuda else _PARTS) and not self.compiled:
            nets["plain"], nets["plain_timm_eager"] = self._nets(self.net.plain, self.net.make)
            if not self.plan.cuda:
                nets["convolutions"] = _bare(nets["plain_timm_eager"])
        works = {name: self._work(net, self.memory_format) for name, net in nets.items()}
        if self.compiled:
            torch._dynamo.reset()
            compiled = self._nets(self.net.name, self.net.make)[1]
            compiled.compile()
            works["timm_compile"] = self._work(compiled, self.memory_format)
        alone = self.net.plain and self.mode == "training_step"  # of a CPU, as layouts of a GPU are not compared
        if self.memory_format == "contiguous" and not (self.plan.quick or self.compiled or alone):
            works["timm_channels_last"] = self._work(self._nets(self.net.name, self.net.make)[1], "channels_last")
        return works

    def _nets(self, name: str, make: Callable[[str], Nets]) -> Nets:
        """Both nets on the device, compared once on a small batch."""
        ours, theirs = make(name)
        ours.to(self.plan.device)
        theirs.to(self.plan.device)
        check_equal(ours, theirs, torch.randn(8, *self.net.shape[1:], device=self.plan.device))
        return ours, theirs

    def _work(self, net: nn.Module, memory_format: str) -> Work:
        wanted = FORMATS[memory_format]
        net.to(memory_format=wanted)
        x = torch.randn(self.net.shape, device=self.plan.device).contiguous(memory_format=wanted)  # (B, 3, H, W)
        # Without its cache, which a captured graph must not fill, autocast casts each weight once all the same.
        autocast = torch.autocast(
            self.plan.device.type, torch.bfloat16, enabled=self.dtype != "float32", cache_enabled=False
        )
        if self.mode == "inference":
            net.eval()

            def infer() -> torch.Tensor:
                with torch.inference_mode(), autocast:
                    logits: torch.Tensor = net(x)
                return logits

            return infer
        net.train()
        target = torch.randint(0, 10, self.net.shape[:1], device=self.plan.device)
        # A rate of 0 costs what any other does, and leaves the numbers of a net without norms finite.
        optimizer = create_optimizer_v2(net, "sgd", lr=0.0, weight_decay=5e-4, momentum=0.9)

        def step() -> None:
            optimizer.zero_grad()
            with autocast:
                loss = F.cross_entropy(net(x), target)
            loss.backward()
            optimizer.step()

        return step
