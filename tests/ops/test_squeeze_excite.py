"""squeeze_excite and its reference: the definition, its contract, and every way torch runs it."""

import pytest
import timm.layers
import torch
import torch.nn.functional as F

from seattn.ops import squeeze_excite, squeeze_excite_gate_reference, squeeze_excite_reference
from seattn.ops._tail.activations import ACTS, GATES

# RMS of the difference over RMS of float64's result.
TOLERANCES = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def inputs(shape=(3, 7, 5, 3), hidden=4, dtype=torch.float32) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    sizes = ((hidden, shape[1]), (hidden,), (shape[1], hidden), (shape[1],))
    return [torch.randn(s, generator=rng, dtype=torch.float64).to(dtype) for s in (shape, *sizes)]


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("act", ACTS)
def test_reference_equals_timms_module_with_the_same_weights(act, gate):
    x, w1, b1, w2, b2 = inputs()
    act_layer = timm.layers.create_act.get_act_layer(act)
    module = timm.layers.SEModule(7, rd_channels=4, act_layer=act_layer, gate_layer=gate)
    state = {"fc1.weight": w1[:, :, None, None], "fc1.bias": b1, "fc2.weight": w2[:, :, None, None], "fc2.bias": b2}
    module.load_state_dict(state, strict=True)
    torch.testing.assert_close(squeeze_excite_reference(x, w1, b1, w2, b2, act, gate), module(x))


def test_two_sigmoid_is_one_at_zero():
    x, w1, b1, w2, _ = inputs()
    assert torch.equal(squeeze_excite(x, w1, b1, 0 * w2, None, gate="two_sigmoid"), x)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 33, 7, 7), (1, 13, 33, 1)], ids=str)
def test_dtype_layout_and_precision(shape, memory_format, dtype, device):
    x, *weights = inputs(shape)
    x = x.to(device, dtype).contiguous(memory_format=memory_format)
    weights = [w.to(device) for w in weights]
    y = squeeze_excite(x, *weights)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=memory_format)
    want = squeeze_excite_reference(x.double(), *(w.double() for w in weights))
    assert relative_error(y, want) <= TOLERANCES[dtype]


def test_empty_batch_gives_an_empty_result_and_zero_gradients(device):
    leaves = [t.to(device).requires_grad_() for t in inputs((0, 7, 5, 3))]
    y = squeeze_excite(*leaves)
    assert y.shape == (0, 7, 5, 3)
    for grad in torch.autograd.grad(y.sum(), leaves):
        assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("act", ACTS)
def test_gate_reference_is_the_factor_of_every_channel(act, gate):
    x, *weights = inputs(dtype=torch.bfloat16)
    scale = squeeze_excite_gate_reference(x, *weights, act, gate)
    assert scale.dtype == torch.float32
    want = (x.float() * scale[:, :, None, None]).bfloat16()
    assert torch.equal(squeeze_excite_reference(x, *weights, act, gate), want)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("act", ACTS)
def test_gradients_of_the_reference(act, gate):
    leaves = [t.requires_grad_() for t in inputs((2, 3, 2, 2), hidden=2, dtype=torch.float64)]
    fn = lambda *t: squeeze_excite_reference(*t, act, gate)  # noqa: E731
    assert torch.autograd.gradcheck(fn, leaves, check_forward_ad=True)


@pytest.mark.parametrize("act", ["silu", "gelu"])
def test_second_gradients_of_the_reference(act):
    leaves = [t.requires_grad_() for t in inputs((2, 3, 2, 2), hidden=2, dtype=torch.float64)]
    assert torch.autograd.gradgradcheck(lambda *t: squeeze_excite_reference(*t, act), leaves)


@pytest.mark.parametrize("fn", [squeeze_excite, squeeze_excite_reference])
def test_autocast_leaves_the_result_in_fp32_precision(fn, device):
    x, *weights = (t.to(device) for t in inputs())
    x = x.bfloat16()
    plain = fn(x, *weights)
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(fn(x, *weights), plain)
        assert fn(x.float(), *weights).dtype == torch.float32


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_torchscript_gives_the_same_result_under_autocast_too(bias):
    x, w1, b1, w2, b2 = inputs()
    if not bias:
        b1 = b2 = None
    scripted = torch.jit.script(squeeze_excite_reference)
    want = squeeze_excite_reference(x, w1, b1, w2, b2, "hard_swish", "two_sigmoid")
    torch.testing.assert_close(scripted(x, w1, b1, w2, b2, "hard_swish", "two_sigmoid"), want)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):  # the first calls profile, later ones run optimised
            torch.testing.assert_close(scripted(x, w1, b1, w2, b2, "hard_swish", "two_sigmoid"), want)


def test_meta_device_gives_shape_dtype_and_layout():
    x, *weights = (t.to("meta") for t in inputs())
    y = squeeze_excite(x.bfloat16().to(memory_format=torch.channels_last), *weights)
    assert y.device.type == "meta"
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)


class Gate(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.ParameterList(weights)

    def forward(self, x):
        return squeeze_excite(x, *self.weights, act="silu")


@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
def test_compiles_without_graph_breaks_and_differentiates(backend):
    x, *weights = inputs((2, 4, 3, 3), hidden=2)
    leaves = [t.requires_grad_() for t in (x, *weights)]
    compiled = torch.compile(lambda *t: squeeze_excite(*t), fullgraph=True, backend=backend)
    y = compiled(*leaves)
    want = squeeze_excite_reference(*leaves)
    torch.testing.assert_close(y, want)
    grads = zip(torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(want.sum(), leaves), strict=True)
    for got, expected in grads:
        torch.testing.assert_close(got, expected)


def test_compiles_under_autocast_without_graph_breaks():
    tensors = inputs((2, 4, 3, 3), hidden=2)
    with torch.autocast("cpu", torch.bfloat16):
        y = torch.compile(lambda *t: squeeze_excite(*t), fullgraph=True, backend="aot_eager")(*tensors)
    torch.testing.assert_close(y, squeeze_excite_reference(*tensors))


def test_exports_saves_and_loads_for_any_batch(tmp_path):
    x, *weights = inputs()
    module = Gate(weights)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "gate.pt2")
    x = torch.cat([x, x])
    torch.testing.assert_close(torch.export.load(tmp_path / "gate.pt2").module()(x), module(x))


def test_fx_records_one_node():
    x, *weights = inputs()
    module = Gate(weights)
    traced = torch.fx.symbolic_trace(module)
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"] == [squeeze_excite]
    assert torch.equal(traced(x), module(x))


def test_tracing_gives_the_same_result():
    x, *weights = inputs()
    module = Gate(weights)
    torch.testing.assert_close(torch.jit.trace(module, x)(2 * x), module(2 * x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act": "tanh"}, "act must be one of relu, silu, gelu, hard_swish, identity; got 'tanh'"),
        ({"gate": "softmax"}, "gate must be one of sigmoid, two_sigmoid, hard_sigmoid; got 'softmax'"),
        ({"x": torch.ones(3, 7)}, r"x must be \(B, C, H, W\) of a floating-point dtype; got \(3, 7\)"),
        ({"x": torch.ones(3, 7, 5, 3, dtype=torch.int64)}, "floating-point dtype; .* torch.int64"),
        ({"x": torch.ones(3, 7, 0, 3)}, r"at least one channel and one pixel; got \(3, 7, 0, 3\)"),
        ({"w1": torch.ones(4, 6)}, r"w1 must be \(R, 7\) .*; got \(4, 6\)"),
        ({"w1": torch.ones(4, 7, 1, 1)}, r"w1 must be \(R, 7\) .*; got \(4, 7, 1, 1\)"),
        ({"w1": torch.ones(0, 7)}, "R > 0"),
        ({"w2": torch.ones(4, 7)}, r"w2 must be \(7, 4\).*; got \(4, 7\)"),
        ({"b1": torch.ones(7)}, r"b1 must be \(4,\) or None; got \(7,\)"),
        ({"b2": torch.ones(7, 1)}, r"b2 must be \(7,\) or None; got \(7, 1\)"),
    ],
    ids=str,
)
def test_wrong_arguments_raise_and_say_what_would_be_right(change, message):
    arguments = dict(zip(("x", "w1", "b1", "w2", "b2"), inputs(), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        squeeze_excite(**arguments)


def test_reference_raises_for_unknown_names():
    with pytest.raises(ValueError, match="got tanh"):
        squeeze_excite_reference(*inputs(), "tanh")
    with pytest.raises(ValueError, match="got softmax"):
        squeeze_excite_reference(*inputs(), "relu", "softmax")


def test_hard_sigmoid_is_relu6_of_z_plus_3_over_6():
    x, _, _, _, b2 = inputs((1, 7, 1, 1))
    w = torch.zeros(7, 7)
    got = squeeze_excite_gate_reference(x, w, None, w, 4 * b2, "relu", "hard_sigmoid")
    torch.testing.assert_close(got[0], F.relu6(4 * b2 + 3) / 6)
