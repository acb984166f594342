"""Every way torch runs an attention tail: opcheck, gradcheck, compile, export, checkpointing, copies, errors."""

import copy
from functools import partial

import pytest
import torch
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint

from seattn import ops
from seattn.ops import set_kernels
from tests.ops._gate_cases import transformed
from tests.ops._tail_cases import CASES, FORMATS, MAPS, SHAPES, TOLERANCES, run

CHECKS = ("schema", "autograd_registration", "faketensor", "aot_dispatch_static", "aot_dispatch_dynamic")
check = partial(opcheck, test_utils=[f"test_{name}" for name in CHECKS])
WITH_NORM = {name: case for name, case in CASES.items() if case.training}


@pytest.fixture(autouse=True)
def _nothing_compiled_yet():
    torch._dynamo.reset()  # all cases share one code object, of which Dynamo keeps only so many versions


@pytest.mark.cover(1)
@pytest.mark.parametrize(("dtype", "memory_format"), MAPS.values(), ids=MAPS)
@pytest.mark.parametrize(
    ("name", "out_act"),
    [
        ("bn-se-tail", "relu"),
        ("bn-se-tail", "identity"),
        ("bn-se-tail-eval", "relu"),
        ("se-tail", "relu"),
        ("bn-tail", "identity"),
        ("eca", "identity"),
        ("ese", "identity"),
    ],
)
def test_operators_pass_opcheck(name, out_act, dtype, memory_format, kernel_device):
    leaves = CASES[name].leaves(SHAPES["odd"], dtype, memory_format, kernel_device)
    fwd, bwd = torch.ops.seattn.attn_tail_fwd.default, torch.ops.seattn.attn_tail_bwd.default
    x, shortcut = leaves["x"], leaves.get("shortcut")
    channels = x.shape[1]
    weight, bias = leaves.get("weight"), leaves.get("bias")
    norm = "none" if weight is None else "frozen" if name.endswith("eval") else "batch"
    given = [torch.ones(channels, device=kernel_device)] * 2 if norm == "frozen" else [None, None]
    weights = [leaves.get(key) for key in ("w1", "b1", "w2", "b2")]
    kind = next((part for part in CASES[name].parts if part in ("se", "eca", "ese")), "none")
    if kind == "eca":
        weights[0] = leaves["taps"]
    static = (kind, "silu", "sigmoid", norm, 1e-5, out_act)
    grown = [None if t is None else t.requires_grad_() for t in (x, shortcut, weight, bias)]
    check(fwd, (*grown, *given, *(w if w is None else w.requires_grad_() for w in weights), *static))
    with torch.no_grad():
        plain = [None if t is None else t.detach() for t in (x, shortcut, weight, bias)]
        weights = [None if w is None else w.detach() for w in weights]
        y, squeeze, mean, var, hidden, scale = fwd(*plain, *given, *weights, *static)
        if norm == "frozen":
            mean, var = given
        saved = (
            y if out_act == "relu" else None,
            *plain[2:],
            mean,
            var,
            weights[0],
            weights[2],
            squeeze,
            hidden,
            scale,
        )
        check(bwd, (torch.ones_like(x), plain[0], *saved, *static))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_of_the_torch_functions(case):
    leaves = {name: t.double().requires_grad_() for name, t in case.leaves((3, 4, 2, 3, 2)).items()}
    with set_kernels("torch"):
        assert torch.autograd.gradcheck(lambda *t: case(dict(zip(leaves, t, strict=True))), tuple(leaves.values()))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_of_the_reference(case):
    leaves = {name: t.double().requires_grad_() for name, t in case.leaves((3, 4, 2, 3, 2)).items()}
    fn = lambda *t: case(dict(zip(leaves, t, strict=True)))  # noqa: E731
    with set_kernels("reference"):
        assert torch.autograd.gradcheck(fn, tuple(leaves.values()), check_forward_ad=not case.training)


@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
@pytest.mark.parametrize("name", ["se-tail", "bn-se-tail", "bn-eca-tail", "bn-tail", "ese"])
def test_compiles_without_graph_breaks_and_differentiates(name, backend, device):
    leaves = CASES[name].leaves(SHAPES["odd"], device=device)
    compiled = torch.compile(CASES[name].__call__, fullgraph=True, backend=backend)
    got, want = run(compiled, leaves), run(CASES[name], leaves)
    for key in want:
        torch.testing.assert_close(got[key], want[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize("name", ["se-tail", "bn-se-tail"])
def test_compiled_code_differentiates_under_autocast(name, kernels, kernel_device):
    leaves = CASES[name].leaves(SHAPES["odd"], torch.bfloat16, device=kernel_device)
    compiled = torch.compile(CASES[name].__call__, fullgraph=True, backend="aot_eager")
    with set_kernels(kernels):
        want = run(CASES[name], leaves)
        with torch.autocast(kernel_device, torch.bfloat16):
            got = run(compiled, leaves)
    for key in want:
        torch.testing.assert_close(got[key], want[key])


@pytest.mark.parametrize("name", ["se-tail", "bn-se-tail", "bn-se-tail-eval", "eca"])
def test_compiled_code_holds_the_operator_and_gives_the_same_bits(name, kernel_device):
    leaves = CASES[name].leaves(SHAPES["odd"], memory_format=torch.channels_last, device=kernel_device)
    compiled = torch.compile(CASES[name].__call__, fullgraph=True, backend="aot_eager")
    with set_kernels("triton"):
        got, want = run(compiled, leaves), run(CASES[name], leaves)
    for key in want:
        assert torch.equal(got[key], want[key]), key
        assert got[key].stride() == want[key].stride(), key


class Tail(torch.nn.Module):
    def __init__(self, name, leaves) -> None:
        super().__init__()
        self.case = CASES[name]
        self.leaves = torch.nn.ParameterDict({key: t for key, t in leaves.items() if key not in ("x", "shortcut")})

    def forward(self, x, shortcut):
        return self.case({"x": x, "shortcut": shortcut, **self.leaves})


@pytest.mark.parametrize("kernels", ["auto", "triton"])
@pytest.mark.parametrize("name", ["se-tail", "bn-se-tail-eval"])
def test_exports_saves_and_loads_for_any_batch(name, kernels, kernel_device, tmp_path):
    leaves = CASES[name].leaves(SHAPES["odd"], device=kernel_device)
    module, maps = Tail(name, leaves), (leaves["x"], leaves["shortcut"])
    batch = torch.export.Dim("batch")
    with set_kernels(kernels):
        program = torch.export.export(module, maps, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, tmp_path / "tail.pt2")
    held = any("attn_tail_fwd" in str(node.target) for node in program.graph.nodes)
    assert held == (kernels == "triton" or kernel_device == "cuda")
    doubled = [torch.cat([t, t]) for t in maps]
    got = torch.export.load(tmp_path / "tail.pt2").module()(*doubled)
    torch.testing.assert_close(got, module(*doubled))


@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize("name", ["se-tail", "bn-se-tail"])
def test_activation_checkpointing_gives_the_same_gradients(name, kernels, kernel_device):
    case, leaves = CASES[name], CASES[name].leaves(SHAPES["odd"], device=kernel_device)
    with set_kernels(kernels):
        want = run(case, leaves)
        got = run(lambda given, **_: checkpoint(case, given, use_reentrant=False), leaves)
    assert all(torch.equal(got[key], want[key]) for key in want)


def test_fx_records_one_node():
    leaves = CASES["se-tail"].leaves(SHAPES["odd"])
    traced = torch.fx.symbolic_trace(Tail("se-tail", leaves))
    targets = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert targets == [ops.squeeze_excite_add_act]
    maps = leaves["x"], leaves["shortcut"]
    assert torch.equal(traced(*maps), Tail("se-tail", leaves)(*maps))


def test_jit_tracing_gives_the_same_result():
    leaves = CASES["se-tail"].leaves(SHAPES["odd"])
    module, maps = Tail("se-tail", leaves), (leaves["x"], leaves["shortcut"])
    doubled = [2 * t for t in maps]
    torch.testing.assert_close(torch.jit.trace(module, maps)(*doubled), module(*doubled))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_meta_device_gives_shape_dtype_and_layout(case):
    leaves = {name: t.to("meta") for name, t in case.leaves(SHAPES["odd"], torch.bfloat16).items()}
    leaves["x"] = leaves["x"].to(memory_format=torch.channels_last)
    y = case(leaves)
    assert (y.device.type, y.dtype) == ("meta", torch.bfloat16)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_a_module_that_ran_a_tail_can_be_copied():
    leaves = CASES["bn-se-tail"].leaves(SHAPES["odd"])
    module, maps = Tail("bn-se-tail", leaves), (leaves["x"], leaves["shortcut"])
    want = module(*maps)
    assert torch.equal(copy.deepcopy(module)(*maps), want)


@pytest.mark.parametrize("kind", ["jvp", "grad", "vmap", "dual-level"])
@pytest.mark.parametrize("name", ["se", "se-tail", "bn-se-tail-eval", "eca"])
def test_function_transforms_get_right_answers_from_auto_and_an_error_otherwise(name, kind, kernel_device):
    case = CASES[name]
    leaves = {key: t.double() for key, t in case.leaves(SHAPES["odd"], device=kernel_device).items()}
    fn, x = lambda x: case(leaves | {"x": x}), leaves["x"]
    if kind == "grad":
        leaf = x.clone().requires_grad_()
        (want,) = torch.autograd.grad(fn(leaf).square().sum(), leaf)
    elif kind == "vmap":
        want = torch.stack([fn(x), fn(2 * x)])
    else:  # central difference: independent of forward-mode AD
        want = (fn(x + 1e-6) - fn(x - 1e-6)) / 2e-6
    torch.testing.assert_close(transformed(kind, fn, x), want, rtol=1e-6, atol=1e-6)
    for kernels in ("torch", "triton"):
        with set_kernels(kernels), pytest.raises(RuntimeError, match="functorch transform or forward-mode AD"):
            transformed(kind, lambda t: case({k: v.float() for k, v in leaves.items()} | {"x": t}), x.float())


@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_a_graph_of_the_gradient_is_refused_with_the_way_out(kernels, kernel_device):
    leaves = CASES["se-tail"].leaves(SHAPES["odd"], device=kernel_device)
    leaves = {key: t.requires_grad_() for key, t in leaves.items()}
    with set_kernels(kernels):
        y = CASES["se-tail"](leaves)
    with pytest.raises(RuntimeError, match=r"differentiable once.*set_kernels\('reference'\)"):
        torch.autograd.grad(y.sum(), leaves["x"], create_graph=True)


def test_the_reference_has_second_derivatives():
    leaves = {key: t.double().requires_grad_() for key, t in CASES["bn-se-tail"].leaves((3, 3, 2, 2, 2)).items()}
    fn = lambda *t: CASES["bn-se-tail"](dict(zip(leaves, t, strict=True)), act="silu")  # noqa: E731
    with set_kernels("reference"):
        assert torch.autograd.gradgradcheck(fn, tuple(leaves.values()))


def test_fake_tensors_pass_through_the_operator(kernel_device):
    from torch._subclasses.fake_tensor import FakeTensorMode

    leaves = CASES["bn-se-tail"].leaves(SHAPES["odd"], memory_format=torch.channels_last, device=kernel_device)
    with set_kernels("triton"), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y = ops.squeeze_excite(*(mode.from_tensor(leaves[key]) for key in ("x", "w1", "b1", "w2", "b2")))
    assert y.shape == leaves["x"].shape
    assert y.stride() == leaves["x"].stride()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["se-tail", "bn-se-tail", "eca-tail"])
def test_captured_in_a_cuda_graph(name):
    case = CASES[name]
    leaves = case.leaves((8, 64, 8, 8, 4), torch.bfloat16, torch.channels_last, "cuda")
    want = run(case, leaves)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run(case, leaves)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = run(case, leaves)
    graph.replay()
    assert all(torch.equal(got[key], want[key]) for key in want)


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", ["se-tail", "bn-se-tail"])
def test_more_than_two_to_the_31_elements(name, memory_format):
    case = CASES[name]
    leaves = case.leaves((2, 64, 8, 8, 4), torch.bfloat16, memory_format, "cuda")
    images = 2**31 // (64 * 64) + 2
    many = {key: t.repeat(images // 2, 1, 1, 1).contiguous(memory_format=memory_format) for key, t in leaves.items()
            if t.dim() == 4}  # fmt: skip
    y = case(leaves | many)
    tolerance = 2 * TOLERANCES[torch.bfloat16][0]
    torch.testing.assert_close(y[-2:].float(), case(leaves).float(), rtol=tolerance, atol=tolerance)


BAD = {
    "x-rank": ({"x": torch.ones(3, 7)}, r"x must be \(B, C, H, W\)"),
    "x-integer": ({"x": torch.ones(3, 7, 5, 3, dtype=torch.int64)}, "floating-point dtype; .* torch.int64"),
    "x-empty": ({"x": torch.ones(3, 7, 0, 3)}, "at least one channel and one pixel"),
    "shortcut": ({"shortcut": torch.ones(3, 7, 5, 1)}, r"shape of x, \(3, 7, 5, 3\); got \(3, 7, 5, 1\)"),
    "w1": ({"w1": torch.ones(4, 6)}, r"w1 must be \(R, 7\) .*; got \(4, 6\)"),
    "w1-rank": ({"w1": torch.ones(3, 7, 1, 1)}, r"w1 must be \(R, 7\) .*; got \(3, 7, 1, 1\)"),
    "w1-empty": ({"w1": torch.ones(0, 7)}, "R > 0"),
    "w2": ({"w2": torch.ones(7, 7)}, r"w2 must be \(7, 3\).*; got \(7, 7\)"),
    "b1": ({"b1": torch.ones(7)}, r"b1 must be \(3,\) or None; got \(7,\)"),
    "b2": ({"b2": torch.ones(7, 1)}, r"b2 must be \(7,\) or None; got \(7, 1\)"),
    "weight": ({"weight": torch.ones(6)}, r"weight must be \(7,\) or None; got \(6,\)"),
    "device": ({"w1": torch.ones(3, 7, device="meta")}, "w1 must be on the device of x, cpu; got meta"),
    "norm-device": ({"bias": torch.ones(7, device="meta")}, "bias must be on the device of x, cpu; got meta"),
    "act": ({"act": "tanh"}, "act must be one of .*; got 'tanh'"),
    "gate": ({"gate": "softmax"}, "gate must be one of .*; got 'softmax'"),
    "out_act": ({"out_act": "gelu"}, "out_act must be one of relu, identity; got 'gelu'"),
    "momentum": ({"momentum": -0.1}, r"momentum must be in 0\.\.1; got -0\.1"),
    "eps": ({"eps": -1e-5}, "eps must be at least 0; got -1e-05"),
}


@pytest.mark.cover(1)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_wrong_arguments_raise_and_say_what_would_be_right(change, message, compiled):
    case = CASES["bn-se-tail"]
    leaves = case.leaves(SHAPES["odd"]) | change
    call = case.__call__
    if compiled:
        call = torch.compile(call, backend="eager")
    with pytest.raises(ValueError, match=message):
        call(leaves)


def test_one_value_a_channel_cannot_be_normalised():
    case = CASES["bn-se-tail"]
    with pytest.raises(ValueError, match="more than one value a channel"):
        case(case.leaves((1, 7, 1, 1, 3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: ops.efficient_channel_attn(x, w[:, :2].flatten()[:4]), r"\(k,\) with k odd; got \(4,\)"),
        (lambda x, w: ops.effective_squeeze_excite(x, w[:, :6], None), r"weight must be \(7, 7\); got \(7, 6\)"),
        (lambda x, w: ops.batch_norm_add_act(x, x, None, None, None, None, training=False), "must be given where"),
        (lambda x, w: ops.batch_norm_add_act(x, x, w[0], None, None, None, training=True), "given together"),
    ],
    ids=["even-taps", "not-square", "no-statistics", "half-statistics"],
)
def test_the_other_ops_refuse_too(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(2, 7, 3, 3), torch.ones(7, 7))
