"""The Triton attention tail agrees with the formulas, evaluated in float64, in values and in every gradient."""

import pytest
import torch
from torch import Tensor

from seattn_kernels import _excite, attn_tail
from seattn_kernels._layout import PASS_TILES, SAMPLE_LIMITS, SAMPLE_TILES, Layout, layout_of, plan_for, tile_for
from seattn_kernels.arguments import Excitation, Norm, Saved
from tests.kernels._tail_reference import ACTS, GATES, Config, Inputs, tail

# RMS of the difference over RMS of the reference: for what is rounded to the maps' dtype, and for what is fp32.
# bfloat16 leaves room for the interpreter, which truncates where a GPU rounds.
TOLERANCES = {torch.float32: (5e-6, 2e-5), torch.float16: (5e-4, 2e-5), torch.bfloat16: (5e-3, 2e-5)}
MAPS = ("y", "dx", "dshortcut")

SHAPES = {  # (N, C, H, W, R, k)
    "all-one": (1, 1, 1, 1, 1, 1),
    "odd": (3, 7, 5, 3, 3, 3),
    "one-pixel": (3, 16, 1, 1, 4, 5),
    "33x33": (2, 5, 33, 33, 1, 7),
    "33-channels": (2, 33, 7, 7, 5, 15),
    "R-above-C": (2, 5, 4, 4, 11, 17),
    "many-tiles": (2, 67, 9, 9, 40, 3),
    "many-images": (17, 3, 1, 2, 2, 3),
    "empty-batch": (0, 8, 5, 5, 2, 3),
}
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
NORMS = ("none", "frozen", "batch")


CASES = {  # each kind with each norm by plain passes, and what one program a sample can do
    "-".join(case): case
    for case in [
        *((kind, norm, "passes") for kind in _excite.KINDS for norm in NORMS),
        *(("se", norm, "sample") for norm in ("none", "frozen")),
    ]
}
# Every kernel's every branch, for the test that runs all shapes; the others run all cases on one shape.
SHAPE_CASES = (
    "none-batch-passes",
    "se-none-passes",
    "se-none-sample",
    "se-frozen-sample",
    "se-batch-passes",
    "ese-frozen-passes",
    "eca-batch-passes",
)
SQUEEZE_EXCITE = {name: case for name, case in CASES.items() if name.startswith("se-none")}


def force(plan: str, monkeypatch) -> None:
    """`plan` for every size, save for the backward that "sample" cannot do."""

    def forced(layout, itemsize, hidden, kind, norm, backward):
        return "passes" if backward and norm == "frozen" else plan

    monkeypatch.setattr(attn_tail, "plan_for", forced)


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request, monkeypatch) -> Config:
    """Every kind, norm and plan that go together."""
    kind, norm, plan = request.param
    force(plan, monkeypatch)
    return Config(kind=kind, norm=norm)


def make(
    shape,
    config: Config,
    dtype=torch.float32,
    memory_format=torch.contiguous_format,
    device="cpu",
    shortcut=True,
    affine=True,
    biases=True,
) -> Inputs:
    n, c, h, w, r, k = shape
    rng = torch.Generator().manual_seed(0)

    def draw(*size) -> Tensor:
        return torch.randn(size, generator=rng).to(device)

    def draw_map() -> Tensor:
        return draw(n, c, h, w).to(dtype).contiguous(memory_format=memory_format)

    x, other = draw_map() + 0.5, draw_map()
    weight, bias, mean, var = draw(c), draw(c), draw(c), draw(c).square() + 0.1
    w1, b1, w2, b2 = {
        "none": (None,) * 4,
        "se": (draw(r, c) / c**0.5, draw(r), draw(c, r) / r**0.5, draw(c)),
        "ese": (draw(c, c) / c**0.5, draw(c), None, None),
        "eca": (draw(k) / k**0.5, None, None, None),
    }[config.kind]
    if config.norm == "none" or not affine:
        weight = bias = None
    if config.norm != "frozen":
        mean = var = None
    if not biases:
        b1 = b2 = None
    return Inputs(x, other if shortcut else None, weight, bias, mean, var, w1, b1, w2, b2)


def gradient_for(x: Tensor) -> Tensor:
    """dy: as x, neither constant nor of zero sum."""
    dy = torch.linspace(-1, 2, x.numel(), device=x.device).view(x.shape)
    return dy.to(x.dtype).contiguous(memory_format=memory_format_of(x))


def memory_format_of(x: Tensor) -> torch.memory_format:
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last


def excitation_of(inputs: Inputs, config: Config) -> Excitation:
    weights = {"w1": inputs.w1, "b1": inputs.b1, "w2": inputs.w2, "b2": inputs.b2}
    return Excitation(kind=config.kind, **weights, act=config.act, gate=config.gate)


def forward(inputs: Inputs, config: Config) -> tuple[Tensor, ...]:
    """(y, squeeze, mean, var, hidden, scale)."""
    norm = Norm(config.norm, inputs.weight, inputs.bias, inputs.mean, inputs.var, config.eps)
    return attn_tail.attn_tail_fwd(inputs.x, inputs.shortcut, excitation_of(inputs, config), norm, config.out_act)


def backward(dy: Tensor, inputs: Inputs, config: Config, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(dx, g, dweight, dbias, dw1, db1, dw2, db2) from the results of `forward`."""
    y, squeeze, mean, var, hidden, scale = results
    masked_by = y if config.out_act == "relu" else None
    if config.norm == "frozen":
        mean, var = inputs.mean, inputs.var
    norm = Norm(config.norm, inputs.weight, inputs.bias, mean, var, config.eps)
    saved = Saved(squeeze, hidden, scale)
    return attn_tail.attn_tail_bwd(dy, inputs.x, masked_by, excitation_of(inputs, config), norm, saved)


def run(inputs: Inputs, config: Config, dy: Tensor | None = None) -> dict[str, Tensor]:
    """The launcher's results by name; gradients only of inputs that are there."""
    dy = gradient_for(inputs.x) if dy is None else dy
    results = forward(inputs, config)
    y, _, mean, var, _, _ = results
    dx, g, dweight, dbias, dw1, db1, dw2, db2 = backward(dy, inputs, config, results)
    if config.out_act == "identity":
        assert g.numel() == 0
        g = dy
    found = {"y": y, "dx": dx, "mean": mean, "var": var}
    grads = {"shortcut": g, "weight": dweight, "bias": dbias, "w1": dw1, "b1": db1, "w2": dw2, "b2": db2}
    return found | {f"d{name}": grad for name, grad in grads.items() if getattr(inputs, name) is not None}


def expected(inputs: Inputs, config: Config, y: Tensor, dy: Tensor) -> dict[str, Tensor]:
    """The same from the formulas in float64; the mask of the relu is that of the y that was rounded and saved."""
    wide = Inputs(*(None if t is None else t.double().requires_grad_() for t in inputs))
    result, before = tail(wide, config)
    g = dy.double()
    if config.out_act == "relu":
        g = g * (y > 0)
    leaves = {name: t for name, t in wide._asdict().items() if t is not None and name not in ("mean", "var")}
    grads = torch.autograd.grad(before, list(leaves.values()), g)
    found = {"y": result.detach()} | {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}
    if config.norm == "batch":
        found["var"], found["mean"] = torch.var_mean(inputs.x.double(), (0, 2, 3), unbiased=False)
    return found


def assert_agrees(inputs: Inputs, config: Config, dy: Tensor | None = None) -> None:
    dy = gradient_for(inputs.x) if dy is None else dy
    got = run(inputs, config, dy)
    want = expected(inputs, config, got["y"], dy)
    assert got["y"].dtype == got["dx"].dtype == inputs.x.dtype
    for name, b in want.items():
        a, limit = got[name], TOLERANCES[inputs.x.dtype][0 if name in MAPS else 1]
        assert a.shape == b.shape, name
        assert a.dtype == (inputs.x.dtype if name in MAPS else torch.float32), name
        error, size = (a.double() - b).norm(), b.norm()
        assert error <= limit * size, f"{name}: {error / size:.2e} of the reference's RMS, allowed {limit}"


@pytest.mark.cover(2)
@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("shape", "case"),
    [
        pytest.param(SHAPES[shape], CASES[case], id=f"{shape}-{case}")
        for shape in SHAPES
        for case in SHAPE_CASES
        # A batch norm of one value is its bias and every gradient through it zero: nothing to compare.
        if not (shape in ("all-one", "empty-batch") and "batch" in case)
    ],
    indirect=["case"],
)
def test_tail_agrees_with_the_formulas(shape, case, memory_format, kernel_device):
    assert_agrees(make(shape, case, memory_format=memory_format, device=kernel_device), case)


@pytest.mark.cover(2)
@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_dtypes(case, dtype, memory_format, kernel_device):
    assert_agrees(make(SHAPES["odd"], case, dtype, memory_format, kernel_device), case)


@pytest.mark.cover(2)
@pytest.mark.parametrize("out_act", ["identity", "relu"])
@pytest.mark.parametrize("shortcut", [False, True], ids=["no-shortcut", "shortcut"])
def test_with_and_without_shortcut_and_relu(case, shortcut, out_act, kernel_device):
    config = case._replace(out_act=out_act)
    assert_agrees(make(SHAPES["odd"], config, device=kernel_device, shortcut=shortcut), config)


@pytest.mark.cover(2)
@pytest.mark.parametrize(("kind", "norm", "plan"), SQUEEZE_EXCITE.values(), ids=SQUEEZE_EXCITE)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("act", ACTS)
def test_every_act_with_every_gate(act, gate, kind, norm, plan, kernel_device, monkeypatch):
    force(plan, monkeypatch)
    config = Config(kind=kind, act=act, gate=gate, norm=norm)
    assert_agrees(make((2, 9, 3, 3, 6, 3), config, device=kernel_device), config)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("kind", ["ese", "eca"])
def test_every_gate_of_the_other_kinds(kind, gate, kernel_device):
    config = Config(kind=kind, gate=gate, norm="batch")
    assert_agrees(make((2, 9, 3, 3, 6, 5), config, device=kernel_device), config)


def test_without_biases_and_without_affine(case, kernel_device):
    assert_agrees(make(SHAPES["odd"], case, device=kernel_device, affine=False, biases=False), case)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
def test_batch_statistics_keep_their_digits_far_from_zero(memory_format, kernel_device):
    # E[x^2] - mean^2 in fp32 has no digit left here: 1e4 squared, times its epsilon, is 12.
    config = Config(kind="none", norm="batch", out_act="identity")
    inputs = make((3, 5, 11, 7, 1, 1), config, memory_format=memory_format, device=kernel_device, shortcut=False)
    far = inputs._replace(x=(inputs.x + 1e4).contiguous(memory_format=memory_format))
    got = forward(far, config)
    var, mean = torch.var_mean(far.x.double(), (0, 2, 3), unbiased=False)
    torch.testing.assert_close(got[2].double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(got[3].double(), var, rtol=2e-3, atol=0)


def test_empty_where_there_is_nothing(case, kernel_device):
    config, (kind, norm) = case._replace(out_act="identity"), (case.kind, case.norm)
    inputs = make(SHAPES["odd"], config, device=kernel_device, shortcut=False)
    results = forward(inputs, config)
    y, squeeze, mean, var, hidden, scale = results
    n, c, _, _, r, k = SHAPES["odd"]
    gated, normed = kind != "none", norm != "none"
    assert squeeze.shape == scale.shape == ((n, c) if gated else (0,))
    assert hidden.shape == ((n, r) if kind == "se" else (0,))
    assert mean.shape == var.shape == ((c,) if norm == "batch" else (0,))
    if gated:
        torch.testing.assert_close(squeeze, inputs.x.mean((2, 3)))  # of x itself, before the norm
    dx, *grads = backward(torch.ones_like(y), inputs, config, results)
    by_kind = {
        "none": [(0,)] * 4,
        "se": [(r, c), (r,), (c, r), (c,)],
        "ese": [(c, c), (c,), (0,), (0,)],
        "eca": [(k,), (0,), (0,), (0,)],
    }
    assert dx.shape == inputs.x.shape
    assert [tuple(g.shape) for g in grads] == [(0,), *[(c,) if normed else (0,)] * 2, *by_kind[kind]]


def test_empty_batch_launches_nothing_and_its_gradients_are_zero(case, kernel_device, monkeypatch):
    def launch(*_):
        raise AssertionError("CUDA refuses an empty grid")

    monkeypatch.setattr("triton.runtime.interpreter.GridExecutor.__call__", launch)
    monkeypatch.setattr("triton.runtime.jit.JITFunction.run", launch)
    got = run(make(SHAPES["empty-batch"], case, device=kernel_device), case)
    assert got["y"].shape == got["dx"].shape == (0, 8, 5, 5)
    for name, grad in got.items():
        if name[0] == "d" and name not in MAPS:
            assert grad.numel() > 0
            assert not grad.any(), name


@pytest.mark.cover(2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
def test_layout_is_kept_bits_are_the_same_again_and_inputs_are_not_written_to_or_aliased(
    case, memory_format, dtype, kernel_device
):
    inputs = make(SHAPES["odd"], case, dtype, memory_format, kernel_device)
    dy = gradient_for(inputs.x)
    results = forward(inputs, case)
    given = [t for t in (*inputs, dy, *results) if t is not None]
    before = [t.clone() for t in given]
    out = backward(dy, inputs, case, results)
    results_again = forward(inputs, case)
    out_again = backward(dy, inputs, case, results_again)
    assert results[0].stride() == out[0].stride() == out[1].stride() == inputs.x.stride()
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))
    again = (*results_again, *out_again)
    assert all(torch.equal(a, b) for a, b in zip((*results, *out), again, strict=True))
    addresses = [t.untyped_storage().data_ptr() for t in (*given, *out, *again) if t.numel()]
    assert len(addresses) == len(set(addresses))


@pytest.mark.cover(1)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_inf_go_where_the_formulas_take_them(case, bad, kernel_device):
    config = case
    inputs = make((2, 5, 2, 2, 3, 3), config, device=kernel_device)
    if inputs.weight is not None:
        inputs.weight.abs_()  # else infinity turns negative, and the relu hides it
    inputs.x[0, 1, 0, 0] = bad
    got = run(inputs, config)
    want, _ = tail(inputs, config)
    assert want.isnan().any() or want.isinf().any()
    assert torch.equal(got["y"].isnan(), want.isnan())
    assert torch.equal(got["y"].isinf(), want.isinf())
    if case.norm != "batch":  # one image's own; the batch's statistics carry it to every image
        assert got["y"][1].isfinite().all()
        assert got["dx"][1].isfinite().all()


@pytest.mark.parametrize("plan", ["passes", "sample"])
def test_a_nan_in_y_passes_the_gradient_as_in_torch(plan, kernel_device, monkeypatch):
    force(plan, monkeypatch)
    config = Config()
    inputs = make((2, 5, 2, 2, 3, 3), config, device=kernel_device)
    inputs.shortcut[0, 1, 0, 0] = torch.nan
    got = run(inputs, config)
    assert got["y"][0, 1, 0, 0].isnan()
    assert got["dshortcut"][0, 1, 0, 0] == gradient_for(inputs.x)[0, 1, 0, 0] != 0


@pytest.mark.parametrize("name", ["shortcut", "dy"])
@pytest.mark.parametrize(
    "spoil",
    [lambda t: t.contiguous(memory_format=torch.channels_last), lambda t: t.double(), lambda t: t[:, :, 1:]],
    ids=["layout", "dtype", "shape"],
)
def test_maps_that_differ_are_refused(name, spoil, kernel_device):
    config = Config()
    inputs = make(SHAPES["odd"], config, device=kernel_device)
    dy = gradient_for(inputs.x)
    if name == "shortcut":
        inputs = inputs._replace(shortcut=spoil(inputs.shortcut))
    else:
        dy = spoil(dy)
    with pytest.raises(ValueError, match=f"{name} must have the shape, dtype and layout of x"):
        run(inputs, config, dy)


def test_a_map_that_is_not_dense_is_refused():
    with pytest.raises(ValueError, match="must be dense"):
        layout_of(torch.zeros(2, 4, 4, 4)[:, ::2])


def test_tables_have_a_row_for_every_map():
    for tables in (PASS_TILES, SAMPLE_TILES):
        for channels_last in (False, True):
            rows = tables[channels_last]
            assert tile_for(tables, Layout(1, 10**6, 10**6, channels_last)) == rows[-1].tile
            for row in rows:  # none is shadowed by those above
                fitting = Layout(1, row.channels or 1024, row.pixels or 4096, channels_last)
                assert tile_for(tables, fitting) == row.tile


CIFAR = Layout(1024, 64, 1024, True)


@pytest.mark.parametrize(
    ("change", "named", "plan"),
    [
        ({}, {}, "sample"),
        ({}, {"norm": "frozen"}, "sample"),
        ({}, {"norm": "frozen", "backward": True}, "passes"),
        ({}, {"norm": "batch"}, "passes"),
        ({}, {"kind": "eca"}, "passes"),
        ({}, {"hidden": SAMPLE_LIMITS.hidden + 1}, "passes"),
        ({}, {"itemsize": 4}, "passes"),  # 256 KB a sample: those being worked on overflow the L2 cache
        ({"images": SAMPLE_LIMITS.images}, {}, "sample"),
        ({"images": SAMPLE_LIMITS.images - 1}, {}, "passes"),
        ({"channels": 512, "pixels": 16}, {}, "sample"),
        ({"channels": 1024, "pixels": 16}, {}, "passes"),
        ({"channels": 256, "pixels": 56 * 56}, {}, "passes"),
    ],
)
def test_the_plan_follows_from_the_sizes(change, named, plan):
    sizes = {"itemsize": 2, "hidden": 4, "kind": "se", "norm": "none", "backward": False} | named
    assert plan_for(CIFAR._replace(**change), **sizes) == plan
