"""channel_gate and CBAM's two gates under every way torch runs an op, and what they refuse."""

import copy
from functools import partial

import pytest
import torch
from torch.library import opcheck

from seattn.ops import cbam_channel_gate, cbam_spatial_gate, channel_gate, gate, set_kernels
from seattn.ops._cbam import channel, spatial
from tests.ops._gate_cases import (
    CASES,
    IMPLEMENTATIONS,
    SHAPES,
    each_case,
    each_format,
    gradient_for,
    inputs,
    transformed,
)

CHECKS = ("schema", "autograd_registration", "faketensor", "aot_dispatch_static", "aot_dispatch_dynamic")
check = partial(opcheck, test_utils=[f"test_{name}" for name in CHECKS])


@pytest.mark.cover(1)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_format
def test_gate_operators_pass_opcheck(memory_format, dtype, kernel_device):
    x, logits = inputs(CASES["gate"], dtype=dtype, memory_format=memory_format, device=kernel_device)
    forward, backward = torch.ops.seattn.channel_gate_fwd.default, torch.ops.seattn.channel_gate_bwd.default
    check(forward, (x.requires_grad_(), logits.requires_grad_(), "sigmoid"))
    with torch.no_grad():
        _, scale = forward(x, logits, "sigmoid")
        check(backward, (torch.ones_like(x), x.detach(), scale, "sigmoid"))


@pytest.mark.cover(1)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_format
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_channel_operators_pass_opcheck(bias, memory_format, dtype, kernel_device):
    case = CASES["channel" if bias else "channel-no-bias"]
    tensors = inputs(case, dtype=dtype, memory_format=memory_format, device=kernel_device)
    leaves = [t if t is None else t.requires_grad_() for t in tensors]
    forward, backward = torch.ops.seattn.cbam_channel_fwd.default, torch.ops.seattn.cbam_channel_bwd.default
    check(forward, (*leaves, "relu", "sigmoid"))
    with torch.no_grad():
        x, w1, _, w2, _ = leaves
        _, *kept = forward(*leaves, "relu", "sigmoid")
        check(backward, (torch.ones_like(x), x.detach(), w1, w2, *kept, "relu", "sigmoid"))


def spatial_arguments(case, norm, dtype, memory_format, device, leaves=True):
    """Arguments of cbam_spatial_fwd."""
    tensors = inputs(case, dtype=dtype, memory_format=memory_format, device=device)
    x, weight, bn_weight, bn_bias = (t if t is None else t.requires_grad_(leaves) for t in tensors)
    given = [torch.full((1,), v, device=device) if norm == "frozen" else None for v in (0.3, 2.5)]
    return [x, weight, bn_weight, bn_bias, *given, norm, 1e-5, "sigmoid", True]


def spatial_backward_arguments(arguments, results):
    """Arguments of cbam_spatial_bwd, from those and the results of the forward."""
    x, weight, bn_weight, _, mean, var, *static = arguments
    _, batch_mean, batch_var, *kept = results
    if static[0] == "batch":
        mean, var = batch_mean, batch_var
    tensors = [None if t is None else t.detach() for t in (torch.ones_like(x), x, weight, bn_weight, mean, var, *kept)]
    return [*tensors, *static]


SPATIAL_CASES = {"spatial-no-norm": "none", "spatial-frozen": "frozen", "spatial-batch": "batch"}


@pytest.mark.cover(1)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_format
@pytest.mark.parametrize(("name", "norm"), SPATIAL_CASES.items(), ids=SPATIAL_CASES)
def test_spatial_operators_pass_opcheck(name, norm, memory_format, dtype, kernel_device):
    arguments = spatial_arguments(CASES[name], norm, dtype, memory_format, kernel_device)
    forward, backward = torch.ops.seattn.cbam_spatial_fwd.default, torch.ops.seattn.cbam_spatial_bwd.default
    check(forward, tuple(arguments))
    with torch.no_grad():
        check(backward, tuple(spatial_backward_arguments(arguments, forward(*arguments))))


def assert_alike(real, fake):
    for a, b in zip(real, fake, strict=True):
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


@each_format
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_torch_functions_return_what_the_fakes_announce(dtype, memory_format):
    x, logits = inputs(CASES["gate"], dtype=dtype, memory_format=memory_format)
    real = gate._fwd_torch(x, logits, "sigmoid")
    assert_alike(real, gate._fwd_fake(x, logits, "sigmoid"))
    backward = (x, x, real[1], "sigmoid")
    assert_alike(gate._bwd_torch(*backward), gate._bwd_fake(*backward))
    x, w1, b1, w2, b2 = inputs(CASES["channel"], dtype=dtype, memory_format=memory_format)
    op, names = channel, ("relu", "sigmoid")
    real = op._fwd_torch(x, w1, b1, w2, b2, *names)
    assert_alike(real, op._fwd_fake(x, w1, b1, w2, b2, *names))
    backward = (x, x, w1, w2, *real[1:], *names)
    assert_alike(op._bwd_torch(*backward), op._bwd_fake(*backward))
    op = spatial.OPERATOR
    for name, norm in SPATIAL_CASES.items():
        arguments = spatial_arguments(CASES[name], norm, dtype, memory_format, "cpu", leaves=False)
        real = op.fwd["torch"](*arguments)
        assert_alike(real, op.fwd_fake(*arguments))
        backward = spatial_backward_arguments(arguments, real)
        assert_alike(op.bwd["torch"](*backward), op.bwd_fake(*backward))


class Gates(torch.nn.Module):
    """One gate after the other, the last with batch norm."""

    def __init__(self, channels=7, device="cpu"):
        super().__init__()
        of_channel, of_spatial = (
            inputs(CASES[k], (1, channels, 2, 1), device=device) for k in ("channel", "spatial-batch")
        )
        self.logits = torch.nn.Parameter(torch.linspace(-1, 1, channels, device=device))
        self.weights = torch.nn.ParameterList([*of_channel[1:], *of_spatial[1:]])
        self.register_buffer("running_mean", torch.zeros(1, device=device))
        self.register_buffer("running_var", torch.ones(1, device=device))

    def forward(self, x):
        w1, b1, w2, b2, weight, bn_weight, bn_bias = self.weights
        running = (self.running_mean, self.running_var)
        x = channel_gate(x, self.logits.expand(x.shape[0], -1))
        x = cbam_channel_gate(x, w1, b1, w2, b2, act="hard_swish")
        return cbam_spatial_gate(x, weight, *running, bn_weight, bn_bias, training=self.training)


def step(module, x):
    """y, every gradient and the running statistics of one step of a copy."""
    copied, x = copy.deepcopy(module), x.detach().requires_grad_()
    y = copied(x)
    grads = torch.autograd.grad(y, [x, *copied.parameters()], gradient_for(y))
    return [y.detach(), *grads, *copied.buffers()]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kernels", ["auto", "triton"])
def test_compiles_without_graph_breaks_and_moves_the_running_statistics(kernels, training, kernel_device):
    module = Gates(device=kernel_device).train(training)
    x = inputs(CASES["channel"], memory_format=torch.channels_last, device=kernel_device)[0]
    with set_kernels("reference"):
        want = step(module, x)
    with set_kernels(kernels):
        copied, leaf = copy.deepcopy(module), x.requires_grad_()
        y = torch.compile(copied, fullgraph=True, backend="aot_eager")(leaf)
        grads = torch.autograd.grad(y, [leaf, *copied.parameters()], gradient_for(y))
    for a, b in zip([y, *grads, *copied.buffers()], want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert y.stride() == x.stride()
    assert (copied.running_var != 1).all() == training


@pytest.mark.parametrize("kernels", ["auto", "triton"])
def test_exports_saves_and_loads_for_any_batch(kernels, kernel_device, tmp_path):
    module = Gates(device=kernel_device).eval()
    x = inputs(CASES["channel"], device=kernel_device)[0]
    with set_kernels(kernels):
        program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "gates.pt2")
    targets = " ".join(str(node.target) for node in program.graph.nodes)
    holds_ops = kernels == "triton" or kernel_device == "cuda"
    assert [f"{op}_fwd" in targets for op in ("channel_gate", "cbam_channel", "cbam_spatial")] == [holds_ops] * 3
    x = torch.cat([x, x])
    torch.testing.assert_close(torch.export.load(tmp_path / "gates.pt2").module()(x), module(x))


def test_fx_records_one_node_for_each_and_a_module_can_be_copied():
    module, x = Gates().eval(), inputs(CASES["channel"])[0]
    traced = torch.fx.symbolic_trace(module)
    calls = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert [calls.count(op) for op in (channel_gate, cbam_channel_gate, cbam_spatial_gate)] == [1, 1, 1]
    want = module(x)
    assert torch.equal(traced(x), want)
    assert torch.equal(copy.deepcopy(module)(x), want)
    torch.testing.assert_close(torch.jit.trace(module, x)(x), want)


@each_case
def test_meta_device_gives_shape_dtype_and_layout(case):
    tensors = inputs(case, dtype=torch.bfloat16, memory_format=torch.channels_last)
    x, *weights = (None if t is None else t.to("meta") for t in tensors)
    y = case.op(x, *weights)
    assert (y.device.type, y.dtype, y.stride()) == ("meta", x.dtype, x.stride())


@pytest.mark.parametrize("kind", ["jvp", "grad", "vmap", "dual-level"])
@pytest.mark.parametrize("name", ["gate", "channel", "spatial-no-norm", "spatial-frozen"])
def test_function_transforms_are_right_under_auto_and_refused_otherwise(name, kind, kernel_device):
    case = CASES[name]
    _, *weights = inputs(case, dtype=torch.float64, device=kernel_device)
    x = torch.linspace(-2, 3, 315, dtype=torch.float64, device=kernel_device).sin().view(SHAPES["odd"])  # no ties
    fn = lambda t: case.op(t, *weights)  # noqa: E731
    if kind == "grad":
        leaf = x.clone().requires_grad_()
        (want,) = torch.autograd.grad(fn(leaf).square().sum(), leaf)  # by the torch functions
    elif kind == "vmap":
        want = torch.stack([fn(x), fn(2 * x)])
    else:  # central difference: independent of forward-mode AD
        want = (fn(x + 1e-5) - fn(x - 1e-5)) / 2e-5
    torch.testing.assert_close(transformed(kind, fn, x), want, rtol=1e-6, atol=1e-8)
    for kernels in IMPLEMENTATIONS:
        with set_kernels(kernels), pytest.raises(RuntimeError, match="functorch transform or forward-mode AD"):
            transformed(kind, lambda t: case.op(t, *(w if w is None else w.float() for w in weights)), x.float())


GATE_ARGUMENTS = dict(zip(("x", "logits"), inputs(CASES["gate"]), strict=True))
CHANNEL_ARGUMENTS = dict(zip(("x", "w1", "b1", "w2", "b2"), inputs(CASES["channel"]), strict=True))
SPATIAL_ARGUMENTS = {
    **dict(zip(("x", "weight", "bn_weight", "bn_bias"), inputs(CASES["spatial-batch"]), strict=True)),
    "running_mean": torch.zeros(1),
    "running_var": torch.ones(1),
    "training": True,
}


@pytest.mark.parametrize(
    ("op", "change", "message"),
    [
        ("gate", {"gate": "softmax"}, "gate must be one of sigmoid, two_sigmoid, hard_sigmoid; got 'softmax'"),
        ("gate", {"x": torch.ones(3, 7)}, r"x must be \(B, C, H, W\) of a floating-point dtype; got \(3, 7\)"),
        ("gate", {"logits": torch.ones(3, 6)}, r"logits must be \(3, 7\) of a floating-point dtype; got \(3, 6\)"),
        ("gate", {"logits": torch.ones(3, 7, 1, 1)}, r"logits must be \(3, 7\) .*; got \(3, 7, 1, 1\)"),
        ("gate", {"logits": torch.ones(3, 7, dtype=torch.int32)}, r"logits must be \(3, 7\) .* torch.int32"),
        ("gate", {"logits": torch.ones(3, 7, device="meta")}, "logits must be on the device of x, cpu; got meta"),
        ("channel", {"act": "tanh"}, "act must be one of relu, silu, gelu, hard_swish, identity; got 'tanh'"),
        ("channel", {"gate": "softmax"}, "gate must be one of sigmoid, two_sigmoid, hard_sigmoid; got 'softmax'"),
        ("channel", {"x": torch.ones(3, 7)}, r"x must be \(B, C, H, W\) of a floating-point dtype; got \(3, 7\)"),
        ("channel", {"x": torch.ones(3, 7, 5, 0)}, r"at least one channel and one pixel; got \(3, 7, 5, 0\)"),
        ("channel", {"w1": torch.ones(5, 6)}, r"w1 must be \(R, 7\) .*; got \(5, 6\)"),
        ("channel", {"w2": torch.ones(5, 7)}, r"w2 must be \(7, 5\).*; got \(5, 7\)"),
        ("channel", {"b1": torch.ones(7)}, r"b1 must be \(5,\) or None; got \(7,\)"),
        ("channel", {"b2": torch.ones(7, device="meta")}, "b2 must be on the device of x, cpu; got meta"),
        ("spatial", {"gate": "softmax"}, "gate must be one of sigmoid, two_sigmoid, hard_sigmoid; got 'softmax'"),
        ("spatial", {"x": torch.ones(3, 7, 5, 3, dtype=torch.int64)}, "floating-point dtype; .* torch.int64"),
        ("spatial", {"weight": torch.ones(1, 2, 4, 4)}, r"weight must be \(1, 2, k, k\) with k odd; .* \(1, 2, 4, 4\)"),
        ("spatial", {"weight": torch.ones(1, 2, 3, 5)}, r"weight must be \(1, 2, k, k\) with k odd; .* \(1, 2, 3, 5\)"),
        ("spatial", {"weight": torch.ones(2, 1, 3, 3)}, r"weight must be \(1, 2, k, k\) with k odd; .* \(2, 1, 3, 3\)"),
        ("spatial", {"weight": torch.ones(2, 7)}, r"weight must be \(1, 2, k, k\) with k odd; got \(2, 7\)"),
        ("spatial", {"bn_weight": torch.ones(7)}, r"bn_weight must be \(1,\) or None; got \(7,\)"),
        ("spatial", {"bn_bias": torch.ones(1, 1)}, r"bn_bias must be \(1,\) or None; got \(1, 1\)"),
        ("spatial", {"running_mean": None}, "running_mean and running_var must be given together"),
        (
            "spatial",
            {"running_mean": None, "running_var": None, "training": False},
            "given where training is False",
        ),
        ("spatial", {"momentum": -0.1}, r"momentum must be in 0\.\.1; got -0.1"),
        ("spatial", {"eps": -1.0}, "eps must be at least 0; got -1.0"),
        ("spatial", {"x": torch.ones(1, 7, 1, 1)}, "more than one value a channel where training is True"),
        ("spatial", {"weight": torch.ones(1, 2, 3, 3, device="meta")}, "weight must be on the device of x, cpu; got m"),
    ],
    ids=str,
)
def test_wrong_arguments_raise_and_say_what_would_be_right(op, change, message):
    fn, arguments = {
        "gate": (channel_gate, GATE_ARGUMENTS),
        "channel": (cbam_channel_gate, CHANNEL_ARGUMENTS),
        "spatial": (cbam_spatial_gate, SPATIAL_ARGUMENTS),
    }[op]
    with pytest.raises(ValueError, match=message):
        fn(**(arguments | change))
