"""The time of one call on the host: ops, blocks and nets on tiny tensors, by pytest-benchmark. `make bench-dispatch`.

On a small tensor the time is that of Python, the dispatcher and autograd: of our ops by their torch functions and by
the references, beside timm's modules; of our blocks and nets, as they are and folded, beside twins of timm's layers.
It adds no rows to benchmarks/results; only `benchmarks.run` does.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from timm.layers import EcaModule, EffectiveSEModule
from timm.models.resnet import BasicBlock
from torch import Tensor

import seattn
from benchmarks.speed.ops import OPS, Op, Pair, alone, eca_weights
from benchmarks.speed.twins import timm_twin
from seattn import ops

SHAPE = (1, 8, 2, 2)
NET = "se_resnet20_cifar"


def _channel_gate(channels: int, like: Tensor) -> Pair:
    logits = torch.zeros(SHAPE[0], channels, device=like.device, dtype=like.dtype)
    return Pair(
        lambda x, _: ops.channel_gate(x, logits),
        lambda x, _: x * logits[:, :, None, None].sigmoid(),  # as in timm's modules
        [logits],
    )


def _ese_weights(ese: Any) -> tuple[Tensor, Tensor]:
    return ese.fc.weight.flatten(1), ese.fc.bias


# Together with the ops of the rows: every op of `seattn.ops`, which a test checks.
ALL = OPS | {
    "eca": Op(alone(EcaModule, "efficient_channel_attn", eca_weights), 2, 3, takes_shortcut=False),
    "ese": Op(alone(EffectiveSEModule, "effective_squeeze_excite", _ese_weights), 2, 3, takes_shortcut=False),
    "channel_gate": Op(_channel_gate, 2, 3, takes_shortcut=False),
}
IMPLEMENTATIONS = ("torch", "reference", "timm")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("mode", ["no_grad", "forward_backward"])
@pytest.mark.parametrize("name", ALL)
def test_dispatch(benchmark: BenchmarkFixture, name: str, mode: str, implementation: str) -> None:
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x, shortcut, dy = torch.randn(3, *SHAPE, device=device)
    pair = ALL[name].make(SHAPE[1], x)
    function = pair.timm if implementation == "timm" else pair.ours
    wanted = [x, *([shortcut] if ALL[name].takes_shortcut else []), *pair.parameters]
    benchmark.group = f"{name} {mode}"

    def forward() -> Tensor:
        with torch.no_grad():
            return function(x, shortcut)

    def forward_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(function(x, shortcut), wanted, dy)

    if mode == "forward_backward":
        for tensor in wanted:
            tensor.requires_grad_()
    # timm's modules do not use the choice of kernels
    with ops.set_kernels("reference" if implementation == "reference" else "torch"):
        benchmark(forward if mode == "no_grad" else forward_backward)


@pytest.mark.parametrize("variant", ["ours", "folded", "timm"])
@pytest.mark.parametrize("mode", ["no_grad", "forward_backward"])
@pytest.mark.parametrize("part", ["block", "net"])
def test_dispatch_of_blocks(benchmark: BenchmarkFixture, part: str, mode: str, variant: str) -> None:
    """One image, with a map of 8 x 8 at the first block. "us_per_block" in the table is the median for each block."""
    if variant == "folded" and mode == "forward_backward":
        pytest.skip("a folded net trains as the plain one")
    torch.manual_seed(0)
    net: Any = timm.create_model(NET).to(memory_format=torch.channels_last)
    net = timm_twin(net) if variant == "timm" else net
    net.train(mode != "no_grad")
    if variant == "folded":
        seattn.accelerate(net, fold=True, verbose=False)
    blocks = sum(isinstance(module, BasicBlock) for module in net.modules())
    if part == "block":
        net, blocks = net.layer1[1], 1
    x = torch.randn(1, net.conv1.in_channels, 8, 8).to(memory_format=torch.channels_last)
    wanted = list(net.parameters())
    benchmark.group = f"{part} {mode}"

    def forward() -> Tensor:
        with torch.no_grad():
            y: Tensor = net(x)
        return y

    def forward_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(net(x).sum(), wanted)

    benchmark(forward if mode == "no_grad" else forward_backward)
    measured: Any = benchmark.stats
    benchmark.extra_info["us_per_block"] = round(1e6 * measured.stats.median / blocks, 1)
