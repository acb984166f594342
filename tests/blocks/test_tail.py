"""`residual_tail` against the modules called one after another."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d, DropPath, EcaModule, EffectiveSEModule, SEModule
from timm.layers.cbam import CbamModule
from torch import nn

from seattn.blocks.tail import norm_reason, plan_tail, residual_tail
from seattn.ops import set_kernels
from seattn.ops._kernel import is_cpu_inference

C = 12
ATTENTION = {
    "none": lambda: None,
    "se": lambda: SEModule(C, rd_channels=3),
    "eca": lambda: EcaModule(C),
    "ese": lambda: EffectiveSEModule(C),
    "cbam": lambda: CbamModule(C, rd_ratio=1 / 4),
}


def frozen():
    return nn.BatchNorm2d(C).eval()


NORMS = {
    "batch norm": lambda: nn.BatchNorm2d(C),
    "cumulative": lambda: nn.BatchNorm2d(C, momentum=None),
    "untracked": lambda: nn.BatchNorm2d(C, track_running_stats=False),
    "no parameters": lambda: nn.BatchNorm2d(C, affine=False),
    "frozen": frozen,
    "norm-act without act": lambda: BatchNormAct2d(C, apply_act=False),
    "norm-act": lambda: BatchNormAct2d(C),
    "group norm": lambda: nn.GroupNorm(3, C),
    "synchronised": lambda: nn.SyncBatchNorm(C),
}


class Parts(nn.Module):
    """A tail; `steps` is the definition."""

    def __init__(self, norm="batch norm", attention="se", act=nn.ReLU, drop_path=None):
        super().__init__()
        torch.manual_seed(0)
        self.bn, self.attn, self.act = NORMS[norm](), ATTENTION[attention](), act()
        self.drop_path = drop_path
        for p in self.bn.parameters():
            nn.init.normal_(p)
        if norm == "frozen":
            nn.init.normal_(self.bn.running_mean)
            nn.init.uniform_(self.bn.running_var, 0.5, 2)

    def steps(self, x, shortcut):
        x = self.bn(x)
        x = x if self.attn is None else self.attn(x)
        x = x if self.drop_path is None else self.drop_path(x)
        return self.act(x + shortcut)

    def forward(self, x, shortcut):
        quick = is_cpu_inference(x)
        parts = {"bn": self.bn, "attn": self.attn, "act": self.act, "drop_path": self.drop_path}
        return residual_tail(x, shortcut, **parts, quick=quick)

    def plan(self):
        return plan_tail(self.bn, self.attn, self.act, self.drop_path)


def maps(count=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    # 0.7 off zero: no value stands at the kink of the ReLU by accident of rounding
    return [torch.randn(count, C, 5, 7, generator=generator).to(dtype) + 0.7 * i for i in range(2)]


def run(parts, function, inputs):
    torch.manual_seed(2)  # of stochastic depth
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = function(*inputs)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    found = {"y": y, "dx": inputs[0].grad, "dshortcut": inputs[1].grad}
    found |= {name: p.grad for name, p in parts.named_parameters()}
    return found | dict(parts.named_buffers())


def assert_same(parts, inputs=None):
    theirs = copy.deepcopy(parts)
    inputs = maps() if inputs is None else inputs
    # torch's own backward of the hard sigmoid has 1/6 rounded to fp32, also in float64
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if isinstance(parts.attn, EffectiveSEModule) else {}
    found, expected = run(parts, parts, inputs), run(theirs, theirs.steps, inputs)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda m, name=name: f"{name}: {m}", **tolerance)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("norm", NORMS)
def test_values_gradients_and_statistics(norm, attention):
    assert_same(Parts(norm, attention).double())


@pytest.mark.parametrize("attention", ATTENTION)
def test_eval(attention):
    parts = Parts(attention=attention).double()
    run(parts, parts.steps, maps())
    parts.zero_grad()
    assert_same(parts.eval())


@pytest.mark.parametrize("drop_path", [None, DropPath(0.5)], ids=["", "drop path"])
@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU])
@pytest.mark.parametrize("images", [0, 1, 3])
@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("norm", NORMS)
def test_inference_gives_the_values_and_leaves_what_it_was_given(norm, attention, images, act, drop_path):
    if attention == "eca" and images == 0:
        pytest.skip("timm's ECA refuses it")
    parts = Parts(norm, attention, act, drop_path).eval()
    for dtype, memory_format in ((torch.float32, torch.channels_last), (torch.float64, torch.contiguous_format)):
        inputs = [x.contiguous(memory_format=memory_format) for x in maps(images, dtype)]
        kept = [x.clone() for x in inputs]
        with torch.no_grad():
            assert is_cpu_inference(inputs[0])
            found, want = parts.to(dtype)(*inputs), parts.steps(*inputs)
        torch.testing.assert_close(found, want)
        assert found.stride() == want.stride() or not images
        for x, before in zip(inputs, kept, strict=True):
            assert torch.equal(x, before)


@pytest.mark.parametrize("act", [nn.SiLU, nn.Identity, nn.ReLU6, lambda: nn.ReLU(inplace=True)])
@pytest.mark.parametrize("attention", ["none", "se"])
def test_other_activations_run_by_themselves(act, attention):
    assert_same(Parts(attention=attention, act=act).double())


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("training", [True, False])
def test_stochastic_depth_drops_what_it_drops_without_the_op(attention, training):
    assert_same(Parts(attention=attention, drop_path=DropPath(0.5)).double().train(training), maps(16))


def test_stochastic_depth_keeps_the_addition_out_of_the_op_in_training_only():
    parts = Parts(drop_path=DropPath(0.5))
    assert not parts.plan().add
    assert parts.plan().norm
    assert parts.eval().plan().add
    assert Parts(drop_path=DropPath(0.0)).plan().add
    assert Parts(drop_path=nn.Identity()).plan().relu
    assert not Parts(drop_path=nn.Dropout(0.5)).plan().add


@pytest.mark.parametrize("attention", ["none", "se"])
def test_a_norm_that_was_applied_before(attention):
    parts = Parts(attention=attention).double()
    x, shortcut = maps()
    y = residual_tail(x, shortcut, bn=None, attn=parts.attn, act=parts.act)
    torch.testing.assert_close(y, (x if parts.attn is None else parts.attn(x)).add(shortcut).relu())


@pytest.mark.parametrize("part", ["bn", "attn", "attn.fc2", "attn.gate", "act", "drop_path"])
@pytest.mark.parametrize("kind", ["forward", "pre", "backward", "own forward"])
def test_a_part_that_is_watched_runs_by_itself(part, kind):
    parts = Parts(drop_path=DropPath(0.0)).double()
    seen = []
    module = parts.get_submodule(part)
    if kind == "forward":
        module.register_forward_hook(lambda *_: seen.append(1))
    elif kind == "pre":
        module.register_forward_pre_hook(lambda *_: seen.append(1))
    elif kind == "backward":
        module.register_full_backward_hook(lambda *_: seen.append(1))
    else:
        forward = module.forward
        module.forward = lambda x: seen.append(1) or forward(x)
    run(parts, parts, maps())
    assert len(seen) == 1


@pytest.mark.parametrize("part", ["bn", "attn", "act"])
def test_a_hook_that_changes_the_values_changes_them(part):
    parts = Parts().double()
    parts.get_submodule(part).register_forward_hook(lambda _m, _x, y: 2 * y)
    x, shortcut = maps()
    torch.testing.assert_close(copy.deepcopy(parts)(x, shortcut), parts.steps(x, shortcut))


@pytest.mark.parametrize("attention", ["none", "se"])
def test_a_hook_on_all_modules_fires(attention):
    parts, names = Parts(attention=attention), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: names.append(type(module).__name__))
    try:
        parts(*maps(dtype=torch.float32))
    finally:
        handle.remove()
    assert {type(module).__name__ for module in (parts.bn, parts.attn, parts.act) if module} <= set(names)


@pytest.mark.parametrize("attention", ["none", "se", "ese"])  # timm's ECA takes none itself
def test_an_empty_batch_passes_as_through_the_modules(attention):
    assert_same(Parts(attention=attention).double(), maps(0))


def test_one_value_a_channel_is_refused_as_by_the_norm():
    x = torch.randn(1, C, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        Parts().steps(x, x)
    with pytest.raises(ValueError, match="more than 1 value per channel"):  # a small map: torch's norm computes it
        Parts()(x, x)


@pytest.mark.parametrize("attention", ["none", "se", "eca"])
@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_under_autocast_is_as_near_to_the_truth_as_the_modules(attention, training):
    fast, slow = (Parts(attention=attention).train(training) for _ in range(2))
    exact = Parts(attention=attention).train(training).double()
    inputs = maps(8, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found, modules = run(fast, fast, inputs), run(slow, slow.steps, inputs)
    truth = run(exact, exact.steps, [x.double() for x in inputs])
    assert found["y"].dtype == modules["y"].dtype == torch.bfloat16
    for name, value in truth.items():
        error, modules_error = ((f[name].double() - value).norm() for f in (found, modules))
        assert error <= 1.5 * modules_error + 2**-8 * value.double().norm(), name  # one rounding to bf16


def test_only_batch_norm_without_anything_after_it_goes_into_the_op():
    reasons = {name: norm_reason(make()) for name, make in NORMS.items()}
    assert {name for name, reason in reasons.items() if reason is None} == {
        "batch norm",
        "cumulative",
        "untracked",
        "no parameters",
        "frozen",
        "norm-act without act",
    }
    assert reasons["synchronised"] == "norm SyncBatchNorm"
    assert reasons["norm-act"] == "norm with ReLU"


@pytest.mark.parametrize("attention", ["none", "se", "eca", "ese"])
def test_batch_norm_attention_addition_and_activation_are_one_op(attention, kernel_device):
    x, shortcut = (t.to(kernel_device).detach().requires_grad_() for t in maps(dtype=torch.float32))
    with set_kernels("triton"):  # with "torch" a tail without attention is torch's own norm and two steps in place
        y = Parts(attention=attention).to(kernel_device)(x, shortcut)
    takes = [node.variable for node, _ in y.grad_fn.next_functions[:2]]  # nothing stands between
    assert takes[0] is x
    assert takes[1] is shortcut
