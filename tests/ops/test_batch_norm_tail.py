"""The norm inside a tail is nn.BatchNorm2d: values, gradients, running statistics; and what a block keeps in memory."""

import copy

import pytest
import torch
import torch.multiprocessing
from timm.layers import SEModule
from timm.models.resnet import BasicBlock
from torch import nn
from torch._inductor.utils import run_and_get_code
from torch.testing import assert_close

from seattn.ops import batch_norm_add_act, batch_norm_squeeze_excite_add_act, set_kernels
from seattn.ops._tail import run
from tests.ops import _two_processes

SHAPES = {"odd": (3, 7, 5, 3), "33-channels": (2, 33, 3, 5), "two-values": (2, 8, 1, 1)}
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
# On the CPU "triton" is Triton's interpreter.
KERNELS = ["torch", "triton", "reference"]


class ModulesTail(nn.Module):
    """What the op stands for, built from torch's and timm's modules."""

    def __init__(self, channels: int, **norm) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, **norm)
        self.se = SEModule(channels, rd_channels=4)
        if self.bn.affine:
            nn.init.uniform_(self.bn.weight, 0.5, 1.5)
            nn.init.normal_(self.bn.bias)

    def forward(self, x, shortcut):
        return (self.se(self.bn(x)) + shortcut).relu()


class FusedTail(ModulesTail):
    def forward(self, x, shortcut):
        bn, se = self.bn, self.se
        training = self.training or bn.running_mean is None
        factor = 0.0 if bn.momentum is None else bn.momentum
        return batch_norm_squeeze_excite_add_act(
            *(x, shortcut, bn.running_mean, bn.running_var, bn.weight, bn.bias),
            *(se.fc1.weight.flatten(1), se.fc1.bias, se.fc2.weight.flatten(1), se.fc2.bias),
            training=training,
            momentum=factor,
            eps=bn.eps,
        )


def step(tail: nn.Module, x: torch.Tensor, shortcut: torch.Tensor) -> dict[str, torch.Tensor]:
    x, shortcut = x.detach().requires_grad_(), shortcut.detach().requires_grad_()
    tail.zero_grad()
    y = tail(x, shortcut)
    y.backward(torch.linspace(-1, 2, y.numel(), device=y.device).view(y.shape).to(y.dtype))
    state = {name: t.clone() for name, t in tail.state_dict().items() if "num_batches" not in name}
    return {"y": y, "dx": x.grad, "dshortcut": shortcut.grad} | state | {
        f"d{name}": p.grad.clone() for name, p in tail.named_parameters()
    }  # fmt: skip


NORMS = {
    "default": {},
    "momentum-eps": {"momentum": 0.3, "eps": 1e-3},
    "no-affine": {"affine": False},
    "no-running": {"track_running_stats": False},
}


@pytest.mark.cover(1, "kernels")
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kernels", KERNELS)
def test_equals_the_modules_over_two_steps_and_in_eval(kernels, shape, memory_format, norm, kernel_device):
    torch.manual_seed(0)
    modules = ModulesTail(shape[1], **norm).to(kernel_device, torch.float32)
    fused = copy.deepcopy(modules)
    fused.__class__ = FusedTail
    with set_kernels(kernels):
        for mode in (True, True, False):
            modules.train(mode)
            fused.train(mode)
            x, shortcut = (torch.randn(shape, device=kernel_device).contiguous(memory_format=memory_format) + 1
                           for _ in range(2))  # fmt: skip
            want, got = step(modules, x, shortcut), step(fused, x, shortcut)
            assert got.keys() == want.keys()
            for name in want:
                label = lambda message, name=name: f"{name}: {message}"  # noqa: E731
                assert_close(got[name], want[name], rtol=2e-4, atol=2e-5, msg=label)


@pytest.mark.parametrize("kernels", KERNELS)
def test_frozen_statistics_stay(kernels, kernel_device):
    x = torch.randn(3, 7, 5, 3, device=kernel_device)
    mean, var = torch.zeros(7, device=kernel_device), torch.ones(7, device=kernel_device)
    with set_kernels(kernels):
        batch_norm_add_act(x, x, mean, var, None, None, training=False)
    assert not mean.any()
    assert (var == 1).all()


def test_given_statistics_may_move_before_the_backward(kernel_device):
    """As in a net that runs in evaluation, then in training, and computes both gradients after that."""
    x = torch.randn(3, 7, 5, 3, device=kernel_device, requires_grad=True)
    mean, var = torch.zeros(7, device=kernel_device), torch.full((7,), 4.0, device=kernel_device)
    with set_kernels("triton"):
        y = batch_norm_add_act(x, None, mean, var, None, None, training=False, eps=0.0)
        mean.add_(1)
        var.add_(1)
        (dx,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(dx, (x > 0) / 2.0)


@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_a_result_that_nothing_differentiated_depends_on_has_no_gradient(kernels, kernel_device):
    class Cut(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, dy):
            return None

    x = torch.randn(3, 7, 5, 3, device=kernel_device, requires_grad=True)
    with set_kernels(kernels):
        y = batch_norm_add_act(x, x, None, None, None, None, training=True)
    assert torch.autograd.grad(Cut.apply(y).sum(), x, allow_unused=True) == (None,)


@pytest.mark.parametrize("kernels", KERNELS)
def test_running_statistics_in_another_dtype(kernels, kernel_device):
    x = torch.randn(3, 7, 5, 3, device=kernel_device)
    mean, var = torch.zeros(7, device=kernel_device).bfloat16(), torch.ones(7, device=kernel_device).bfloat16()
    with set_kernels(kernels):
        batch_norm_add_act(x, None, mean, var, None, None, training=True, momentum=1.0)
    torch.testing.assert_close(mean, x.mean((0, 2, 3)).bfloat16(), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(var, x.var((0, 2, 3)).bfloat16(), rtol=1e-2, atol=1e-3)


class Plain(ModulesTail):
    def forward(self, x, shortcut):
        bn = self.bn
        running = bn.running_mean, bn.running_var
        return batch_norm_add_act(x, shortcut, *running, bn.weight, bn.bias, training=self.training)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("tail", [Plain, FusedTail], ids=["plain", "se"])
def test_compiled_code_in_bf16_makes_no_fp32_copy_of_the_map(tail, training):
    """Between two convolutions, so that every map is either fused away or memory of its own."""
    shape = (4, 16, 12, 12)
    net = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1), tail(16), nn.Conv2d(16, 16, 3, padding=1)])
    net, x = net.to(memory_format=torch.channels_last), torch.randn(shape).to(memory_format=torch.channels_last)

    def forward(x):
        c = net[0](x)
        return net[2](net[1](c, c))

    def step():
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(training):
            y = torch.compile(forward, fullgraph=True)(x)
        if training:
            y.backward(torch.ones_like(y))

    net.train(training)
    torch._dynamo.reset()
    _, graphs = run_and_get_code(step)
    maps = [line for code in graphs for line in code.splitlines() if f"empty_strided_cpu({shape}" in line]
    # In inference the convolutions make all maps but one; a normalised map would be another.
    assert len(maps) == 1 if not training else maps
    assert [line for line in maps if "torch.float32" in line] == []


def kept_bytes(fn, *also_kept: torch.Tensor) -> int:
    """Bytes that autograd keeps for the backward of fn(), each storage once, without those that are kept anyway."""
    storages = {}

    def pack(t):
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        fn()
    for t in also_kept:
        storages.pop(t.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def test_a_block_keeps_two_maps_for_its_backward_where_timms_keeps_more(capsys):
    shape = (8, 64, 16, 16)
    block = BasicBlock(64, 64, attn_layer=lambda c, **dd: SEModule(c, rd_channels=4, **dd))
    c, shortcut = (torch.randn(shape, requires_grad=True) for _ in range(2))
    weights = list(block.parameters())
    size = c.untyped_storage().nbytes()
    tail = FusedTail(64)
    tail.load_state_dict({f"bn.{k}": v for k, v in block.bn2.state_dict().items()}
                         | {f"se.{k}": v for k, v in block.se.state_dict().items()})  # fmt: skip

    def timms() -> None:
        y = block.se(block.bn2(c))
        y += shortcut
        block.act2(y)

    with set_kernels("torch"):
        ours = kept_bytes(lambda: tail(c, shortcut), c, shortcut, *tail.parameters())
    eager = kept_bytes(timms, c, shortcut, *weights)
    small = 4 * 8 * (64 + 64 + 4) + 4 * 4 * 64  # squeeze, scale and hidden (N, C + C + R), mean, var and copies (C)
    with capsys.disabled():
        print(
            f"\nmaps kept for the backward beside the convolution's output: {ours / size:.2f}, timm: {eager / size:.2f}"
        )
    assert size <= ours <= size + small  # y; with c that is 2 T
    assert eager >= 2 * size


def test_two_processes_have_the_gradients_of_one(tmp_path):
    meeting = f"file://{tmp_path / 'meeting'}"  # no port, which another test could take
    other = torch.multiprocessing.spawn(_two_processes.step, (1, meeting), join=False)  # rank 0 is this process
    grads = _two_processes.step(0, 0, meeting)
    other.join()
    net, x = _two_processes.net_and_images()
    net(x).square().mean().backward()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, net.get_parameter(name).grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("inside", [False, True])
def test_small_maps_leave_their_norm_to_torch_with_the_same_results(inside, monkeypatch):
    torch.manual_seed(0)
    plain, tail = ModulesTail(7), FusedTail(7)
    tail.load_state_dict(plain.state_dict())
    x, shortcut = torch.randn(2, *SHAPES["odd"])
    monkeypatch.setattr(run, "NORM_INSIDE_FROM", x.numel() + (not inside))
    with set_kernels("torch"), torch.autograd.profiler.profile() as profile:
        found = step(tail, x, shortcut)
    names = {event.name for event in profile.function_events}
    assert ("aten::native_batch_norm" in names) is not inside
    expected = step(plain, x, shortcut)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
