"""The Triton squeeze-excite agrees with the reference, evaluated in float64, in values and in every gradient."""

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from seattn.ops import get_kernels, set_kernels, squeeze_excite, squeeze_excite_reference
from seattn.ops._squeeze_excite_op import _bwd_torch, _fwd_torch
from seattn.ops.squeeze_excite import ACTS, GATES

# RMS of the difference over RMS of the reference, for (y and dx, rounded to the dtype; weight gradients, in fp32).
# bfloat16 leaves room for the interpreter, which truncates where a GPU rounds.
TOLERANCES = {torch.float32: (5e-6, 1e-5), torch.float16: (5e-4, 1e-5), torch.bfloat16: (5e-3, 1e-5)}

SHAPES = {  # (B, C, H, W, R)
    "all-one": (1, 1, 1, 1, 1),
    "odd": (3, 7, 5, 3, 3),
    "one-pixel": (3, 16, 1, 1, 4),
    "prime-C-33x33": (1, 13, 33, 33, 1),
    "33-channels": (2, 33, 7, 7, 5),
    "R-above-C": (2, 5, 4, 4, 11),
    "powers-of-two": (2, 64, 8, 8, 4),
    "many-tiles": (1, 97, 9, 9, 70),
    "empty-batch": (0, 8, 5, 5, 2),
}
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
NAMES = ("x", "w1", "b1", "w2", "b2")


def inputs(shape, dtype=torch.float32, memory_format=torch.contiguous_format, device="cpu", bias=True) -> list:
    b, c, h, w, r = shape
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(b, c, h, w, generator=rng).to(device, dtype).contiguous(memory_format=memory_format)
    weights = [torch.randn(s, generator=rng).to(device) for s in ((r, c), (r,), (c, r), (c,))]
    if not bias:
        weights[1] = weights[3] = None
    return [x, *weights]


def run(fn, tensors, dy=None, **names) -> list[Tensor]:
    """y and the gradient of every input that is given."""
    leaves = [t if t is None else t.detach().requires_grad_() for t in tensors]
    y = fn(*leaves, **names)
    if dy is None:
        dy = torch.linspace(-1, 2, y.numel(), device=y.device).view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, [t for t in leaves if t is not None], dy.to(y.dtype))]


def assert_agrees(tensors, dy=None, **names) -> None:
    """The kernel on `tensors` against the reference on the same numbers in float64."""
    dtype = tensors[0].dtype
    with set_kernels("triton"):
        got = run(squeeze_excite, tensors, dy, **names)
    if dy is None:  # the same rounded gradient for both
        dy = torch.linspace(-1, 2, got[0].numel(), device=got[0].device).view(got[0].shape).to(dtype)
    wide = [t if t is None else t.double() for t in tensors]
    want = run(squeeze_excite_reference, wide, dy.double(), **names)
    results = ["y", *(f"d{name}" for name, t in zip(NAMES, tensors, strict=True) if t is not None)]
    assert got[0].dtype == got[1].dtype == dtype
    for name, a, b in zip(results, got, want, strict=True):
        limit = TOLERANCES[dtype][0 if name in ("y", "dx") else 1]
        assert a.shape == b.shape, name
        error, scale = (a.double() - b).norm(), b.norm()
        assert error <= limit * scale, f"{name}: {error / scale:.2e} of the reference's RMS, allowed {limit}"


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_kernel_agrees_with_the_reference(shape, dtype, memory_format, kernel_device):
    assert_agrees(inputs(shape, dtype, memory_format, kernel_device))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("act", ACTS)
def test_every_act_with_every_gate(act, gate, kernel_device):
    assert_agrees(inputs((2, 9, 3, 3, 6), device=kernel_device), act=act, gate=gate)


def test_without_biases(kernel_device):
    assert_agrees(inputs(SHAPES["odd"], device=kernel_device, bias=False))


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x[::2],
        lambda x: x[:, 1:8],
        lambda x: x[:, :, 1:, ::2],
        lambda x: x.transpose(2, 3),
        lambda x: x.contiguous(memory_format=torch.channels_last)[:, 1:8],
        lambda x: x[:1].expand(3, -1, -1, -1),
    ],
    ids=["images", "channels", "pixels", "transposed", "channels-of-channels_last", "expanded"],
)
def test_layouts_that_are_not_dense(cut, kernel_device):
    x, *_ = inputs((3, 9, 5, 4, 3), device=kernel_device)
    x = cut(x)
    assert_agrees([x, *inputs((1, x.shape[1], 1, 1, 3), device=kernel_device)[1:]])


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
def test_expanded_gradient(memory_format, kernel_device):
    tensors = inputs(SHAPES["odd"], memory_format=memory_format, device=kernel_device)
    assert_agrees(tensors, dy=torch.ones((), device=kernel_device).expand(tensors[0].shape))


def test_weights_that_are_not_contiguous(kernel_device):
    x, w1, b1, w2, b2 = inputs(SHAPES["odd"], device=kernel_device)
    assert_agrees([x, w1.t().contiguous().t(), b1, w2.t().contiguous().t(), b2])


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
def test_output_and_gradient_keep_the_layout_of_x(memory_format, kernel_device):
    tensors = inputs(SHAPES["odd"], torch.bfloat16, memory_format, kernel_device)
    with set_kernels("triton"):
        y, dx, *_ = run(squeeze_excite, tensors)
    assert y.stride() == dx.stride() == tensors[0].stride()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weight_gradients_have_the_dtype_of_the_weights(dtype, kernel_device):
    x, *weights = inputs(SHAPES["odd"], torch.bfloat16, device=kernel_device)
    with set_kernels("triton"):
        _, dx, *grads = run(squeeze_excite, [x, *(w.to(dtype) for w in weights)])
    assert dx.dtype == torch.bfloat16
    assert {g.dtype for g in grads} == {dtype}


def test_autocast_changes_nothing(kernel_device):
    tensors = inputs(SHAPES["33-channels"], torch.bfloat16, device=kernel_device)
    with set_kernels("triton"):
        plain = run(squeeze_excite, tensors)
        with torch.autocast(kernel_device, torch.bfloat16):
            cast = run(squeeze_excite, tensors)  # the backward too, where a matrix product would be lowered
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_the_same_input_gives_the_same_bits(kernel_device):
    tensors = inputs(SHAPES["many-tiles"], torch.bfloat16, device=kernel_device)
    with set_kernels("triton"):
        first, second = run(squeeze_excite, tensors), run(squeeze_excite, tensors)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_inputs_are_never_written_to(kernel_device):
    tensors = inputs(SHAPES["odd"], device=kernel_device)
    dy = torch.ones_like(tensors[0])
    before = [t.clone() for t in (*tensors, dy)]
    with set_kernels("triton"):
        run(squeeze_excite, tensors, dy)
    assert all(torch.equal(a, b) for a, b in zip(before, (*tensors, dy), strict=True))


def test_empty_batch_launches_nothing(kernel_device, monkeypatch):
    for name in ("_pool_kernel", "_matvec_kernel", "_gate_grad_kernel", "_scale_kernel"):
        monkeypatch.setattr(
            f"seattn_kernels.squeeze_excite.{name}", None
        )  # a launch would fail: CUDA refuses an empty grid
    with set_kernels("triton"):
        run(squeeze_excite, inputs(SHAPES["empty-batch"], device=kernel_device))


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("gate", GATES)
def test_nan_stays_in_its_image(act, gate, kernel_device):
    x, *weights = inputs((2, 3, 2, 2, 2), device=kernel_device)
    x[0, 0, 0, 0] = torch.nan
    with set_kernels("triton"):
        y = squeeze_excite(x, *weights, act=act, gate=gate)
    assert y[0].isnan().all()
    assert y[1].isfinite().all()


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_operators_pass_opcheck(bias, dtype, memory_format, kernel_device):
    x, *weights = inputs(SHAPES["odd"], dtype, memory_format, kernel_device, bias)
    leaves = [t if t is None else t.requires_grad_() for t in (x, *weights)]
    forward, backward = torch.ops.seattn.squeeze_excite_fwd.default, torch.ops.seattn.squeeze_excite_bwd.default
    opcheck(forward, (*leaves, "silu", "sigmoid"))
    with torch.no_grad():
        x, w1, _, w2, _ = (t if t is None else t.detach() for t in leaves)
        _, *saved = forward(*leaves, "silu", "sigmoid")
        opcheck(backward, (torch.ones_like(x), x, w1, w2, *saved, "silu", "sigmoid"))


def test_second_derivative_raises(kernel_device):
    tensors = [t.requires_grad_() for t in inputs(SHAPES["odd"], device=kernel_device)]
    with set_kernels("triton"):
        (dx,) = torch.autograd.grad(squeeze_excite(*tensors).sum(), tensors[0], create_graph=True)
    with pytest.raises(RuntimeError, match="squeeze_excite_bwd"):
        dx.sum().backward()


class Gate(torch.nn.Module):
    def __init__(self, tensors):
        super().__init__()
        self.weights = torch.nn.ParameterList(tensors)

    def forward(self, x):
        return squeeze_excite(x, *self.weights)


def test_exported_graph_holds_the_operator_for_any_batch_and_survives_saving(kernel_device, tmp_path):
    x, *weights = inputs(SHAPES["odd"], device=kernel_device)
    with set_kernels("triton"):
        program = torch.export.export(Gate(weights), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "gate.pt2")
    loaded = torch.export.load(tmp_path / "gate.pt2").module()
    assert any("squeeze_excite_fwd" in str(node.target) for node in program.graph.nodes)
    x = torch.cat([x, x])
    torch.testing.assert_close(loaded(x), squeeze_excite_reference(x, *weights))


def test_compiles_without_graph_breaks_and_differentiates(kernel_device):
    tensors = inputs(SHAPES["odd"], memory_format=torch.channels_last, device=kernel_device)
    compiled = torch.compile(lambda *t: squeeze_excite(*t), fullgraph=True, backend="aot_eager")
    with set_kernels("triton"):
        for a, b in zip(run(compiled, tensors), run(squeeze_excite, tensors), strict=True):
            assert torch.equal(a, b)
            assert a.stride() == b.stride()


def test_auto_takes_the_kernel_on_cuda_and_the_reference_on_cpu(kernel_device, monkeypatch):
    calls = []
    monkeypatch.setattr("seattn_kernels.squeeze_excite._matvec", lambda *args, **kwargs: calls.append(args))
    set_kernels("auto")
    squeeze_excite(*inputs(SHAPES["odd"], device=kernel_device))
    assert get_kernels() == "auto"
    assert bool(calls) == (kernel_device == "cuda")


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("act", ACTS)
def test_operators_on_a_cpu_without_triton_agree_with_the_reference(act, gate, memory_format):
    x, w1, _, w2, _ = tensors = inputs((2, 9, 3, 3, 6), memory_format=memory_format)
    y, *saved = _fwd_torch(*tensors, act, gate)
    dy = torch.ones_like(y)
    got = [y, *_bwd_torch(dy, x, w1, w2, *saved, act, gate)]
    assert got[0].stride() == got[1].stride() == x.stride()
    for a, b in zip(got, run(squeeze_excite_reference, tensors, dy, act=act, gate=gate), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
