"""channel_gate: both implementations against the reference in float64, its contract, and every way torch runs it."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.library import opcheck

from seattn.ops import channel_gate, channel_gate_reference, set_kernels
from seattn.ops._tail.activations import GATES
from seattn.ops.gate import _bwd_fake, _bwd_torch, _fwd_fake, _fwd_torch

# RMS of the difference over RMS of float64's result, for y and dx, and for the gradient of the logits. In 16 bit torch
# rounds the gate and the products under the sum as well; bfloat16 leaves room for the interpreter, which truncates.
TOLERANCES = {
    ("torch", torch.float64): (1e-15, 1e-14),
    ("torch", torch.float32): (2e-7, 2e-6),
    ("torch", torch.float16): (1e-3, 1e-3),
    ("torch", torch.bfloat16): (8e-3, 8e-3),
    ("triton", torch.float32): (2e-7, 2e-6),
    ("triton", torch.float16): (5e-4, 2e-6),
    ("triton", torch.bfloat16): (8e-3, 2e-6),
}
SHAPES = {  # (B, C, H, W)
    "all-one": (1, 1, 1, 1),
    "odd": (3, 7, 5, 3),
    "one-pixel": (3, 33, 1, 1),
    "prime-C-33x33": (1, 13, 33, 33),
    "many-tiles": (1, 67, 9, 9),
    "empty-batch": (0, 8, 5, 5),
}
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
IMPLEMENTATIONS = ("torch", "triton")


def inputs(shape=SHAPES["odd"], dtype=torch.float32, memory_format=torch.contiguous_format, device="cpu"):
    rng = torch.Generator().manual_seed(0)
    x, logits = torch.randn(shape, generator=rng), torch.randn(shape[:2], generator=rng)
    x = x.to(device, dtype).contiguous(memory_format=memory_format)
    return [x, logits.to(device, torch.promote_types(dtype, torch.float32))]


def run(fn, tensors, dy=None, **names):
    """y, dx and dlogits."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = fn(*leaves, **names)
    if dy is None:
        dy = torch.linspace(-1, 2, y.numel(), device=y.device).view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))]


def assert_agrees(implementation, tensors, dy=None, **names):
    """The implementation on `tensors` against the reference on the same numbers in float64."""
    dtype = tensors[0].dtype
    if dy is None:  # the same rounded gradient for both
        dy = torch.linspace(-1, 2, tensors[0].numel(), device=tensors[0].device).view(tensors[0].shape).to(dtype)
    with set_kernels(implementation):
        got = run(channel_gate, tensors, dy, **names)
    want = run(channel_gate_reference, [t.double() for t in tensors], dy.double(), **names)
    assert got[0].dtype == got[1].dtype == dtype
    assert got[2].dtype == tensors[1].dtype
    for name, a, b in zip(("y", "dx", "dlogits"), got, want, strict=True):
        limit = TOLERANCES[implementation, dtype][name == "dlogits"]
        assert a.shape == b.shape, name
        error, scale = (a.double() - b).norm(), b.norm()
        assert error <= limit * scale, f"{name}: {error / scale:.2e} of the reference's RMS, allowed {limit}"


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(("implementation", "dtype"), TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_agrees_with_the_reference(shape, implementation, dtype, memory_format, kernel_device):
    assert_agrees(implementation, inputs(shape, dtype, memory_format, kernel_device))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_gate(implementation, gate, kernel_device):
    x, logits = inputs(device=kernel_device)
    assert_agrees(implementation, [x, 3 * logits], gate=gate)  # beyond where hard_sigmoid is flat


@pytest.mark.parametrize("gate", GATES)
def test_gradients_of_the_torch_functions(gate):
    leaves = [t.requires_grad_() for t in inputs((2, 3, 2, 2), torch.float64)]
    with set_kernels("torch"):
        assert torch.autograd.gradcheck(lambda *t: channel_gate(*t, gate=gate), leaves)


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x[::2],
        lambda x: x[:, 1:6],
        lambda x: x.transpose(2, 3),
        lambda x: x.contiguous(memory_format=torch.channels_last)[:, 1:6],
        lambda x: x[:1].expand(3, -1, -1, -1),
    ],
    ids=["images", "channels", "transposed", "channels-of-channels_last", "expanded"],
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_layouts_that_are_not_dense(implementation, cut, kernel_device):
    x = cut(inputs(device=kernel_device)[0])
    logits = inputs((x.shape[1], x.shape[0], 1, 1), device=kernel_device)[1].t()
    assert not logits.is_contiguous()
    assert_agrees(implementation, [x, logits], dy=torch.ones((), device=kernel_device).expand(x.shape))


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_output_and_gradient_keep_the_layout_of_x(implementation, memory_format, kernel_device):
    tensors = inputs(memory_format=memory_format, device=kernel_device)
    with set_kernels(implementation):
        y, dx, _ = run(channel_gate, tensors)
    assert y.stride() == dx.stride() == tensors[0].stride()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_same_bits_again_and_under_autocast_and_inputs_unwritten(implementation, kernel_device):
    tensors = inputs(SHAPES["many-tiles"], torch.bfloat16, device=kernel_device)
    before = [t.clone() for t in tensors]
    with set_kernels(implementation):
        first = run(channel_gate, tensors)
        with torch.autocast(kernel_device, torch.bfloat16):
            second = run(channel_gate, tensors)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nan_stays_where_it_is(implementation, kernel_device):
    x, logits = inputs(device=kernel_device)
    x[0, 1, 2, 0] = logits[1, 3] = torch.nan
    with set_kernels(implementation):
        got = run(channel_gate, [x, logits])
    for a, b in zip(got, run(channel_gate_reference, [x, logits]), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


def test_empty_batch_launches_nothing(kernel_device, monkeypatch):
    for name in ("channel_gate_kernel", "channel_gate_grad_kernel"):
        monkeypatch.setattr(f"seattn_kernels.channel_gate.{name}", None)  # CUDA refuses an empty grid
    with set_kernels("triton"):
        y, dx, dlogits = run(channel_gate, inputs(SHAPES["empty-batch"], device=kernel_device))
    assert y.shape == dx.shape == (0, 8, 5, 5)
    assert dlogits.shape == (0, 8)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_operators_pass_opcheck(dtype, memory_format, kernel_device):
    x, logits = inputs(SHAPES["odd"], dtype, memory_format, kernel_device)
    leaves = x.requires_grad_(), logits.requires_grad_()
    checks = ("schema", "autograd_registration", "faketensor", "aot_dispatch_static", "aot_dispatch_dynamic")
    check = partial(opcheck, test_utils=[f"test_{name}" for name in checks])
    check(torch.ops.seattn.channel_gate_fwd.default, (*leaves, "sigmoid"))
    with torch.no_grad():
        _, scale = torch.ops.seattn.channel_gate_fwd(*leaves, "sigmoid")
        arguments = (torch.ones_like(x), x.detach(), scale, "sigmoid")
        check(torch.ops.seattn.channel_gate_bwd.default, arguments)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
def test_torch_functions_return_what_the_fakes_announce(memory_format):
    x, logits = inputs(SHAPES["odd"], torch.bfloat16, memory_format)
    real, fake = _fwd_torch(x, logits, "sigmoid"), _fwd_fake(x, logits, "sigmoid")
    real += _bwd_torch(x, x, real[1], "sigmoid")
    fake += _bwd_fake(x, x, fake[1], "sigmoid")
    for a, b in zip(real, fake, strict=True):
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


class Gate(torch.nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, x):
        return channel_gate(x, self.logits.expand(x.shape[0], -1))


@pytest.mark.parametrize("kernels", ["auto", "triton"])
def test_exports_saves_and_loads_for_any_batch(kernels, kernel_device, tmp_path):
    x, logits = inputs(device=kernel_device)
    module = Gate(logits[:1])
    with set_kernels(kernels):
        program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "gate.pt2")
    holds_op = any("channel_gate_fwd" in str(node.target) for node in program.graph.nodes)
    assert holds_op == (kernels == "triton" or kernel_device == "cuda")
    x = torch.cat([x, x])
    got = torch.export.load(tmp_path / "gate.pt2").module()(x)
    torch.testing.assert_close(got, channel_gate_reference(x, logits[:1].expand(6, -1)))


@pytest.mark.parametrize("kernels", ["auto", "triton"])
def test_compiles_without_graph_breaks_and_differentiates(kernels, kernel_device):
    tensors = inputs(memory_format=torch.channels_last, device=kernel_device)
    with set_kernels(kernels):
        compiled = torch.compile(lambda *t: channel_gate(*t), fullgraph=True, backend="aot_eager")
        got = run(compiled, tensors)
    want = run(channel_gate_reference, tensors)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    assert got[0].stride() == want[0].stride()


def test_fx_records_one_node_and_a_module_can_be_copied():
    x, logits = inputs()
    module = Gate(logits[:1])
    traced = torch.fx.symbolic_trace(module)
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"].count(channel_gate) == 1
    assert torch.equal(traced(x), module(x))
    assert torch.equal(copy.deepcopy(module)(x), module(x))


def test_tracing_gives_the_same_result():
    x, logits = inputs()
    module = Gate(logits[:1])
    torch.testing.assert_close(torch.jit.trace(module, x)(2 * x), module(2 * x))


def test_meta_device_gives_shape_dtype_and_layout():
    x, logits = (t.to("meta") for t in inputs(dtype=torch.bfloat16, memory_format=torch.channels_last))
    y = channel_gate(x, logits)
    assert (y.device.type, y.dtype, y.stride()) == ("meta", x.dtype, x.stride())


def transformed(kind, fn, x):
    if kind == "jvp":
        return torch.func.jvp(fn, (x,), (torch.ones_like(x),))[1]
    if kind == "grad":
        return torch.func.grad(lambda t: fn(t).square().sum())(x)
    if kind == "vmap":
        return torch.func.vmap(fn)(torch.stack([x, 2 * x]))
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(fn(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


@pytest.mark.parametrize("kind", ["jvp", "grad", "vmap", "dual-level"])
def test_function_transforms_are_right_under_auto_and_refused_otherwise(kind, kernel_device):
    x, logits = inputs(device=kernel_device)
    scale = logits.sigmoid()[:, :, None, None]
    want = {
        "jvp": scale.expand_as(x),
        "dual-level": scale.expand_as(x),
        "grad": 2 * x * scale**2,
        "vmap": torch.stack([x * scale, 2 * x * scale]),
    }[kind]
    torch.testing.assert_close(transformed(kind, lambda t: channel_gate(t, logits), x), want)
    for kernels in IMPLEMENTATIONS:
        with set_kernels(kernels), pytest.raises(RuntimeError, match="functorch transform or forward-mode AD"):
            transformed(kind, lambda t: channel_gate(t, logits), x)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_second_derivative_raises(implementation, kernel_device):
    leaves = [t.requires_grad_() for t in inputs(device=kernel_device)]
    with set_kernels(implementation):
        y = channel_gate(*leaves).square().sum()
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(y, leaves[0], create_graph=True)


def test_hard_sigmoid_and_two_sigmoid_are_what_their_names_say():
    x, logits = inputs((2, 33, 1, 1))
    y = channel_gate(torch.ones_like(x), 4 * logits, gate="hard_sigmoid")
    torch.testing.assert_close(y.flatten(1), F.relu6(4 * logits + 3) / 6)
    assert torch.equal(channel_gate(x, 0 * logits, gate="two_sigmoid"), x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate": "softmax"}, "gate must be one of sigmoid, two_sigmoid, hard_sigmoid; got 'softmax'"),
        ({"x": torch.ones(3, 7)}, r"x must be \(B, C, H, W\) of a floating-point dtype; got \(3, 7\)"),
        ({"x": torch.ones(3, 7, 5, 3, dtype=torch.int64)}, "floating-point dtype; .* torch.int64"),
        ({"x": torch.ones(3, 7, 0, 3)}, r"at least one channel and one pixel; got \(3, 7, 0, 3\)"),
        ({"logits": torch.ones(3, 6)}, r"logits must be \(3, 7\) of a floating-point dtype; got \(3, 6\)"),
        ({"logits": torch.ones(3, 7, 1, 1)}, r"logits must be \(3, 7\) .*; got \(3, 7, 1, 1\)"),
        ({"logits": torch.ones(3, 7, dtype=torch.int32)}, r"logits must be \(3, 7\) .* torch.int32"),
        ({"logits": torch.ones(3, 7, device="meta")}, "logits must be on the device of x, cpu; got meta"),
    ],
    ids=str,
)
def test_wrong_arguments_raise_and_say_what_would_be_right(change, message):
    with pytest.raises(ValueError, match=message):
        channel_gate(**(dict(zip(("x", "logits"), inputs(), strict=True)) | change))
