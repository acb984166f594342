"""channel_gate and CBAM's two gates: both implementations against the references in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F

from seattn.ops import cbam_channel_gate, cbam_spatial_gate, channel_gate, set_kernels
from seattn.ops._cbam import plane_conv
from seattn.ops._tail.activations import ACTS, GATES
from tests.ops._gate_cases import (
    CASES,
    SHAPES,
    TOLERANCES,
    assert_agrees,
    each_case,
    each_format,
    each_implementation,
    inputs,
    run,
)

# The interpreter takes 10 ms a program: every shape in fp32, every dtype in one shape. A single pixel has no variance.
VARIANTS = ("channel-no-bias", "spatial-not-affine")
SETTINGS = [
    pytest.param(CASES[name], shape, *setting, id=f"{name}-{shape}-{setting[0]}-{str(setting[1])[6:]}")
    for name in CASES
    for shape in SHAPES
    for setting in TOLERANCES
    if shape == "odd" or (setting[1] == torch.float32 and name not in VARIANTS)
    if shape != "all-one" or name != "spatial-batch"
]


@pytest.mark.cover(2, "implementation")
@each_format
@pytest.mark.parametrize(("case", "shape", "implementation", "dtype"), SETTINGS)
def test_agrees_with_the_reference(case, shape, implementation, dtype, memory_format, kernel_device):
    assert_agrees(implementation, case, inputs(case, SHAPES[shape], dtype, memory_format, kernel_device))


@pytest.mark.parametrize("gate", GATES)
@each_implementation
@pytest.mark.parametrize("name", ["gate", "channel", "spatial-batch"])
def test_every_gate(name, implementation, gate, kernel_device):
    x, *weights = inputs(CASES[name], device=kernel_device)
    if name == "gate":
        weights = [8 * logits for logits in weights]  # beyond where hard_sigmoid is flat
    assert_agrees(implementation, CASES[name], [x, *weights], gate=gate)


@pytest.mark.parametrize("act", ACTS)
@each_implementation
def test_every_act(implementation, act, kernel_device):
    case = CASES["channel"]
    assert_agrees(implementation, case, inputs(case, device=kernel_device), act=act)


@each_implementation
@pytest.mark.parametrize("name", ["channel", "spatial-no-norm"])
def test_a_maximum_that_all_share_gives_each_its_part(name, implementation, kernel_device):
    """Of a map that ReLU has cleared, say: every pixel and every channel holds the maximum."""
    case = CASES[name]
    x, *weights = inputs(case, (2, 70, 5, 5), device=kernel_device)
    assert_agrees(implementation, case, [torch.full_like(x, 0.75), *weights])


@each_implementation
@pytest.mark.parametrize("name", ["channel", "spatial-no-norm"])
def test_a_map_of_minus_infinity_has_a_maximum(name, implementation, kernel_device):
    """-inf is where the search for the maximum starts; the mean is -inf too, which relu stops and 0 * -inf does not."""
    case = CASES[name]
    x, *weights = inputs(case, (2, 9, 5, 5), device=kernel_device)
    weights = [None if w is None else w.abs() for w in weights]
    x[0] = -torch.inf
    with set_kernels(implementation):
        y = case.op(x, *weights)
    assert torch.equal(y.isnan(), case.reference(x, *weights).isnan())
    torch.testing.assert_close(y, case.reference(x, *weights), equal_nan=True)


@each_case
def test_gradients_of_the_torch_functions(case):
    rng = torch.Generator().manual_seed(1)
    leaves = [t if t is None else t.requires_grad_() for t in inputs(case, (2, 3, 2, 2), torch.float64)]
    # No ties and no activation at its kink: both have a gradient, but no derivative.
    leaves[0] = torch.randn(2, 3, 2, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    with set_kernels("torch"):
        assert torch.autograd.gradcheck(case.op, leaves)


@pytest.mark.cover(1, "implementation")
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
@each_implementation
@pytest.mark.parametrize("name", ["gate", "channel", "spatial-batch"])
def test_layouts_that_are_not_dense(name, implementation, cut, kernel_device):
    case = CASES[name]
    x, *_ = inputs(case, device=kernel_device)
    x = cut(x.abs())  # else the bias's gradient, one sum over all pixels, cancels to a hundredth of its terms
    _, *weights = inputs(case, (*x.shape[:2], 2, 1), device=kernel_device)
    weights = [w if w.dim() < 2 else w.transpose(-1, -2).contiguous().transpose(-1, -2) for w in weights]
    assert not weights[0].is_contiguous()
    assert_agrees(implementation, case, [x, *weights], dy=torch.ones((), device=kernel_device).expand(x.shape))


@pytest.mark.parametrize("depthwise_from", [0, 20_001], ids=["depthwise", "plain"])
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("shape", [(128, 9, 8), (3, 1, 1), (1, 17, 5), (0, 4, 4), (2, 2, 33)], ids=str)
def test_convolution_of_planes(shape, size, depthwise_from, monkeypatch):
    monkeypatch.setattr(plane_conv, "DEPTHWISE_FROM", depthwise_from)
    images, height, width = shape
    torch.manual_seed(0)
    pooled, weight = torch.randn(images, 2, height, width), torch.randn(1, 2, size, size)
    dz = torch.randn(shape)
    wide = [t.double().requires_grad_() for t in (pooled, weight)]
    want = F.conv2d(*wide, padding=size // 2)[:, 0]
    found = plane_conv.plane_conv(pooled, weight)
    torch.testing.assert_close(found, want.float(), rtol=1e-5, atol=1e-5)
    gradients = zip(
        plane_conv.plane_conv_grads(dz, pooled, weight), torch.autograd.grad(want, wide, dz.double()), strict=True
    )
    for gradient, exact in gradients:
        torch.testing.assert_close(gradient, exact.float(), rtol=1e-5, atol=1e-4)


@pytest.mark.cover(1, "implementation")
@each_format
@each_implementation
@each_case
def test_layout_of_x_same_bits_again_and_under_autocast_and_inputs_unwritten(
    case, implementation, memory_format, kernel_device
):
    tensors = inputs(case, dtype=torch.bfloat16, memory_format=memory_format, device=kernel_device)
    before = copy.deepcopy(tensors)
    with set_kernels(implementation):
        first = run(case.op, tensors)
        with torch.autocast(kernel_device, torch.bfloat16):
            second = run(case.op, tensors)
    assert first[0].stride() == first[1].stride() == tensors[0].stride()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for a, b in zip(before, tensors, strict=True):
        assert a is b is None or torch.equal(a, b)


@each_case
def test_autocast_leaves_the_reference_in_fp32(case):
    tensors = inputs(case)
    want = case.reference(*tensors)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(case.reference(*tensors), want)


@each_implementation
@each_case
def test_nan_reaches_what_it_reaches_in_the_reference(case, implementation, kernel_device):
    tensors = inputs(case, (2, 7, 12, 5), device=kernel_device)
    tensors[0][0, 1, 2, 0] = torch.nan
    if case is CASES["gate"]:
        tensors[1][1, 3] = torch.nan  # a logit
    with set_kernels(implementation):
        got = run(case.op, tensors)
    want = run(case.reference, tensors)
    assert want[0].isnan().any()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-4, atol=1e-4)


@each_format
def test_pooling_kernels_take_nan_for_the_maximum_as_amax_does(memory_format, kernel_device):
    """The gate cannot show it: the mean beside the maximum is NaN as well."""
    from seattn_kernels import cbam_channel, cbam_spatial  # needs triton

    x, w1, b1, w2, b2 = inputs(CASES["channel"], memory_format=memory_format, device=kernel_device)
    x[0, 1, 2, 0] = torch.nan
    x[1] = -torch.inf
    want = torch.stack([x.amax(1), x.mean(1)], 1)
    torch.testing.assert_close(cbam_spatial.pool_channels(x, True), want, equal_nan=True)
    _, pooled, *_ = cbam_channel.cbam_channel_fwd(x, w1, b1, w2, b2, "relu", "sigmoid")
    torch.testing.assert_close(pooled, torch.stack([x.mean((2, 3)), x.amax((2, 3))]), equal_nan=True)


@each_implementation
@pytest.mark.parametrize("name", ["gate", "channel", "channel-no-bias", "spatial-no-norm", "spatial-frozen"])
def test_empty_batch_launches_nothing_and_gives_zero_gradients(name, implementation, kernel_device, monkeypatch):
    for module, kernels in {
        "cbam_channel": [
            *("pool_pixels_kernel", "reduce_pixels_kernel", "pooled_gate_grad_kernel"),
            *("pair_logits_kernel", "pair_hidden_grad_kernel", "linear"),
        ],
        "channel_gate": ["channel_gate_kernel", "channel_gate_grad_kernel"],
        "cbam_spatial": [
            *("pool_channels_kernel", "pixel_gate_kernel", "reduce_channels_kernel", "pixel_gate_grad_kernel")
        ],
    }.items():
        for kernel in kernels:
            monkeypatch.setattr(f"seattn_kernels.{module}.{kernel}", None)  # CUDA refuses an empty grid
    with set_kernels(implementation):
        y, dx, *weight_grads = run(CASES[name].op, inputs(CASES[name], (0, 8, 5, 5), device=kernel_device))
    assert y.shape == dx.shape == (0, 8, 5, 5)
    assert all(torch.equal(grad, torch.zeros_like(grad)) for grad in weight_grads)


@each_implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_running_statistics_move_as_those_of_batch_norm(dtype, implementation, kernel_device):
    case = CASES["spatial-batch"]
    x, weight, bn_weight, bn_bias = inputs(case, device=kernel_device)
    running = [torch.tensor([v], device=kernel_device, dtype=dtype) for v in (0.3, 2.5)]
    want = [r.clone().float() for r in running]
    pooled = torch.stack([x.amax(1), x.mean(1)], 1)
    F.batch_norm(F.conv2d(pooled, weight, padding=3), *want, bn_weight, bn_bias, True, 0.2, 1e-5)
    with set_kernels(implementation):
        cbam_spatial_gate(x, weight, *running, bn_weight, bn_bias, training=True, momentum=0.2)
        torch.testing.assert_close(running, [w.to(dtype) for w in want])
        unmoved = [r.clone() for r in running]
        cbam_spatial_gate(x, weight, *running, bn_weight, bn_bias, training=False)
    assert all(torch.equal(a, b) for a, b in zip(running, unmoved, strict=True))


def test_two_sigmoid_and_hard_sigmoid_are_what_their_names_say():
    x, logits = inputs(CASES["gate"])
    none = (None, None, None, None)
    for y in (
        channel_gate(x, 0 * logits, gate="two_sigmoid"),
        cbam_channel_gate(x, torch.ones(2, 7), None, torch.zeros(7, 2), None, gate="two_sigmoid"),
        cbam_spatial_gate(x, torch.zeros(1, 2, 3, 3), *none, training=False, gate="two_sigmoid"),
    ):
        assert torch.equal(y, x)
    y = channel_gate(torch.ones_like(x), 8 * logits, gate="hard_sigmoid")
    torch.testing.assert_close(y[:, :, 0, 0], F.relu6(8 * logits + 3) / 6)
