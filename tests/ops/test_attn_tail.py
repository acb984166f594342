"""Every implementation of every attention tail agrees with the reference in float64, in values and all gradients."""

import pytest
import torch

from seattn.ops import set_kernels
from seattn.ops._tail.activations import ACTS, GATES
from seattn.ops._tail.in_torch import WIDEN_BELOW
from tests.ops._tail_cases import CASES, EMPTY, FORMATS, MAPS, SHAPES, TOLERANCES, assert_agrees, run

WITH_SE = {name: case for name, case in CASES.items() if "se" in case.parts}
WITH_NORM = {name: case for name, case in CASES.items() if case.training}
by_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
by_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
by_map = pytest.mark.parametrize(("dtype", "memory_format"), MAPS.values(), ids=MAPS)
by_format = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)


@pytest.fixture(params=["torch", "triton"])
def kernels(request, kernel_device) -> str:
    return request.param


@pytest.mark.cover(2)
@by_map
@by_shape
@by_case
def test_torch_agrees_with_the_reference(case, shape, dtype, memory_format, device):
    assert_agrees(case, "torch", case.leaves(shape, dtype, memory_format, device))


@pytest.mark.cover(1)  # the pairs are those of tests/kernels/test_attn_tail_launcher.py, with fewer steps in between
@by_map
@by_shape
@by_case
def test_triton_agrees_with_the_reference(case, shape, dtype, memory_format, kernel_device):
    assert_agrees(case, "triton", case.leaves(shape, dtype, memory_format, kernel_device))


@pytest.mark.cover(2)
@by_format
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(4, 16, 72, 72, 2), (2, 64, 48, 48, 4)], ids=["16-channels", "64-channels"])
@pytest.mark.parametrize("name", ["se", "se-tail", "bn-se-tail"])
def test_large_16_bit_maps_by_torch(name, shape, dtype, memory_format, device):
    assert shape[0] * shape[1] * shape[2] * shape[3] >= WIDEN_BELOW
    assert_agrees(CASES[name], "torch", CASES[name].leaves(shape, dtype, memory_format, device))


@pytest.mark.cover(2)
@pytest.mark.parametrize("shape", [SHAPES["odd"], (4, 16, 72, 72, 2), EMPTY], ids=["odd", "large", "empty"])
@by_map
@by_case
def test_without_gradients_to_the_bit(case, dtype, memory_format, shape, device):
    if shape == EMPTY and case.training:
        pytest.skip("batch statistics of nothing are refused")
    leaves = case.leaves(shape, dtype, memory_format, device)
    with set_kernels("torch"):
        want = case({name: t.detach().requires_grad_() for name, t in leaves.items()})
        copies = [t.clone() for t in leaves.values()]
        for context in (torch.no_grad(), torch.inference_mode(), torch.autocast(device, torch.bfloat16)):
            with context:
                got = case(leaves)
            assert (got.dtype, got.stride(), got.requires_grad) == (dtype, want.stride(), False)
            assert torch.equal(got, want)
        assert all(torch.equal(a, b) for a, b in zip(copies, leaves.values(), strict=True)), "an input was changed"


@pytest.mark.cover(1, "kernels")
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("case", WITH_SE.values(), ids=WITH_SE)
def test_every_act_with_every_gate(case, act, gate, kernels, kernel_device):
    assert_agrees(case, kernels, case.leaves((2, 9, 3, 3, 6), device=kernel_device), act=act, gate=gate)


@pytest.mark.cover(1, "kernels")
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("name", ["eca", "eca-tail", "bn-eca-tail", "ese"])
def test_every_gate(name, gate, kernels, kernel_device):
    assert_agrees(CASES[name], kernels, CASES[name].leaves(SHAPES["odd"], device=kernel_device), gate=gate)


@pytest.mark.cover(1, "kernels")
@by_format
@pytest.mark.parametrize("name", ["se-tail", "bn-se-tail", "bn-tail", "bn-tail-eval", "eca-tail"])
def test_identity_as_the_last_activation(name, memory_format, kernels, kernel_device):
    leaves = CASES[name].leaves(SHAPES["odd"], torch.float32, memory_format, kernel_device)
    assert_agrees(CASES[name], kernels, leaves, out_act="identity")


@pytest.mark.parametrize("name", ["bn-se-tail", "bn-tail", "bn-eca-tail", "bn-se-tail-eval"])
def test_norm_tails_without_a_shortcut(name, kernels, kernel_device):
    case, leaves = CASES[name], CASES[name].leaves(SHAPES["odd"], device=kernel_device)
    del leaves["shortcut"]
    assert_agrees(WithoutShortcut(case), kernels, leaves)


class WithoutShortcut:
    def __init__(self, case) -> None:
        self.case, self.parts, self.training = case, ("shortcut", *case.parts), case.training

    def __call__(self, leaves, **names):
        return self.case(leaves | {"shortcut": None}, **names)


@pytest.mark.parametrize("name", ["se", "se-tail", "bn-se-tail"])
def test_without_biases(name, kernels, kernel_device):
    case, leaves = CASES[name], CASES[name].leaves(SHAPES["odd"], device=kernel_device)
    del leaves["b1"], leaves["b2"]
    fixed = lambda given, **names: case(given | {"b1": None, "b2": None}, **names)  # noqa: E731
    fixed.parts = case.parts
    assert_agrees(fixed, kernels, leaves)


@pytest.mark.parametrize("name", ["bn-se-tail", "bn-tail", "bn-tail-eval"])
def test_norm_without_weight_and_bias(name, kernels, kernel_device):
    case, leaves = CASES[name], CASES[name].leaves(SHAPES["odd"], device=kernel_device)
    del leaves["weight"], leaves["bias"]
    fixed = lambda given, **names: case(given | {"weight": None, "bias": None}, **names)  # noqa: E731
    fixed.parts = case.parts
    assert_agrees(fixed, kernels, leaves)


@pytest.mark.cover(1, "kernels")
@by_format
@pytest.mark.parametrize("case", WITH_NORM.values(), ids=WITH_NORM)
def test_a_mean_far_from_zero_costs_no_digits(case, memory_format, kernels, kernel_device):
    leaves = case.leaves((4, 7, 5, 3, 3), torch.float32, memory_format, kernel_device)
    leaves["x"] = leaves["x"] + 64  # E[x^2] - E[x]^2 in fp32 would keep three digits; 64 costs x itself six bits
    with set_kernels(kernels):
        got = case(leaves)
    with set_kernels("reference"):
        want = case({name: t.double() for name, t in leaves.items()})
    assert (got - want).norm() <= 64 * TOLERANCES[torch.float32][0] * want.norm()


@pytest.mark.cover(1, "kernels")
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
@pytest.mark.parametrize("name", ["se", "bn-se-tail"])
def test_layouts_that_are_not_dense(name, cut, kernels, kernel_device):
    case = CASES[name]
    x = cut(torch.randn(3, 9, 5, 4, generator=torch.Generator().manual_seed(2)).to(kernel_device))
    b, c, h, w = x.shape
    assert_agrees(case, kernels, case.leaves((b, c, h, w, 3), device=kernel_device) | {"x": x})


@pytest.mark.cover(1, "kernels")
@by_format
@pytest.mark.parametrize("name", ["se-tail", "bn-se-tail"])
def test_a_shortcut_in_another_layout_and_dtype(name, memory_format, kernels, kernel_device):
    leaves = CASES[name].leaves(SHAPES["odd"], torch.float32, memory_format, kernel_device)
    other = next(f for f in FORMATS.values() if f != memory_format)
    leaves["shortcut"] = leaves["shortcut"].contiguous(memory_format=other)
    assert_agrees(CASES[name], kernels, leaves)
    with set_kernels(kernels):
        results = run(CASES[name], leaves | {"shortcut": leaves["shortcut"].double()})
    assert results["y"].dtype == torch.float32
    assert results["dshortcut"].dtype == torch.float64
    assert results["y"].is_contiguous(memory_format=memory_format)


@pytest.mark.cover(1, "kernels")
@by_format
@by_case
def test_expanded_gradient(case, memory_format, kernels, kernel_device):
    leaves = case.leaves(SHAPES["odd"], torch.float32, memory_format, kernel_device)
    assert_agrees(case, kernels, leaves, dy=torch.ones((), device=kernel_device).expand(leaves["x"].shape))


@by_case
def test_weights_may_be_in_another_dtype(case, kernels, kernel_device):
    leaves = case.leaves(SHAPES["odd"], torch.bfloat16, device=kernel_device)
    lowered = {name: t.bfloat16() for name, t in leaves.items()}
    with set_kernels(kernels):
        results = run(case, lowered)
    assert {t.dtype for t in results.values()} == {torch.bfloat16}


@pytest.mark.cover(1, "kernels")
@by_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@by_case
def test_layout_of_x_same_bits_again_and_under_autocast_and_inputs_unwritten(
    case, dtype, memory_format, kernels, kernel_device
):
    leaves = case.leaves(SHAPES["33-channels"], dtype, memory_format, kernel_device)
    dy = torch.linspace(-1, 2, leaves["x"].numel(), device=kernel_device).view(leaves["x"].shape)
    before = [t.clone() for t in (*leaves.values(), dy)]
    with set_kernels(kernels):
        plain = run(case, leaves, dy)
        with torch.autocast(kernel_device, torch.bfloat16):
            cast = run(case, leaves, dy)  # the backward too, where a matrix product would be lowered
    assert plain["y"].stride() == plain["dx"].stride() == leaves["x"].stride()
    assert all(torch.equal(plain[name], cast[name]) for name in plain)
    assert all(torch.equal(a, b) for a, b in zip(before, (*leaves.values(), dy), strict=True))


@by_format
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.training])
def test_empty_batch_gives_an_empty_result_and_zero_gradients(name, memory_format, kernels, kernel_device):
    leaves = CASES[name].leaves(EMPTY, torch.float32, memory_format, kernel_device)
    with set_kernels(kernels):
        results = run(CASES[name], leaves)
    assert results["y"].shape == results["dx"].shape == leaves["x"].shape
    assert all(not results[f"d{name}"].any() for name in leaves)


@pytest.mark.cover(1, "kernels")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
@by_case
def test_values_that_are_not_finite_go_where_the_reference_has_them(case, value, kernels, kernel_device):
    leaves = case.leaves((3, 7, 5, 3, 3), device=kernel_device)
    leaves["x"][1, 2, 3, 1] = value
    with set_kernels(kernels):
        got = run(case, leaves)
    with set_kernels("reference"):
        want = run(case, leaves)
    for name in ("y", "dx"):
        assert torch.equal(got[name].isnan(), want[name].isnan()), name


def test_nan_in_the_gradient_of_a_dropped_value_stays_out(kernels, kernel_device):
    case, leaves = CASES["se-tail"], CASES["se-tail"].leaves(SHAPES["odd"], device=kernel_device)
    with set_kernels(kernels):
        y = run(case, leaves)["y"]
        dy = torch.where(y > 0, torch.ones_like(y), torch.full_like(y, float("nan")))
        results = run(case, leaves, dy)
    assert (y == 0).any()
    assert not any(t.isnan().any() for t in results.values())
