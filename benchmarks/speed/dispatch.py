"""What a call costs on the host: every public op on a tiny tensor, by pytest-benchmark. `make bench-dispatch`.

The kernels hardly run, so what is left is Python, the dispatcher and autograd's bookkeeping: our ops by their torch
functions and by the references, beside timm's modules. The rows of benchmarks/results are of `benchmarks.run` alone.
"""

from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from timm.layers import EcaModule, EffectiveSEModule
from torch import Tensor

from benchmarks.speed.ops import OPS, Op, Pair
from seattn import ops

SHAPE = (1, 8, 2, 2)


def _eca(channels: int, like: Tensor) -> Pair:
    eca = EcaModule(channels, device=like.device, dtype=like.dtype)
    return Pair(
        lambda x, _: ops.efficient_channel_attn(x, eca.conv.weight.flatten()), lambda x, _: eca(x), [eca.conv.weight]
    )


def _ese(channels: int, like: Tensor) -> Pair:
    ese = EffectiveSEModule(channels, device=like.device, dtype=like.dtype)
    return Pair(
        lambda x, _: ops.effective_squeeze_excite(x, ese.fc.weight.flatten(1), ese.fc.bias),
        lambda x, _: ese(x),
        list(ese.parameters()),
    )


def _channel_gate(channels: int, like: Tensor) -> Pair:
    logits = torch.zeros(SHAPE[0], channels, device=like.device, dtype=like.dtype)
    return Pair(
        lambda x, _: ops.channel_gate(x, logits),
        lambda x, _: x * logits[:, :, None, None].sigmoid(),  # the last line of timm's modules
        [logits],
    )


# With those of the rows every op that `seattn.ops` has; a test holds it.
ALL = OPS | {
    "eca": Op(_eca, 2, 3, takes_shortcut=False),
    "ese": Op(_ese, 2, 3, takes_shortcut=False),
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
    # timm's modules do not ask which kernels are chosen
    with ops.set_kernels("reference" if implementation == "reference" else "torch"):
        benchmark(forward if mode == "no_grad" else forward_backward)
