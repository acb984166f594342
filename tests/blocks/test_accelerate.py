"""Accelerated nets against the untouched ones: outputs, gradients, statistics, and training of 20 steps."""

import copy

import pytest
import torch
from torch.nn import functional as F

import seattn
from tests.helpers.nets import NAMED, OWN, build, distance, images, measure

QUICK_STEPS = {"seresnet18": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)}, "mobilenetv3_small_100": {}}
# torch's own backward of the hard sigmoid has 1/6 rounded to fp32, also in float64: 7e-9 from ours.
HARD_GATES = {"mobilenetv3_large_100": 1e-7, "mobilenetv3_small_100": 1e-7}
# Not the gradients: where a value within rounding of 0 falls on the other side of a ReLU deep in the net, all gradients
# before it change by a percent. In float64, where none does, they are held to 1e-10.
IN_FLOAT32 = ("output", "eval output", "statistic")


def accelerated(model):
    copied = copy.deepcopy(model)
    assert seattn.acceleration_report(seattn.accelerate(copied, verbose=False)).replaced
    return copied


def assert_same_in_float64(found, expected, rtol=1e-10):
    assert found.keys() == expected.keys()
    whole = sum(t.square().sum() for name, t in expected.items() if name.startswith("gradient of")).sqrt()
    for name, value in expected.items():
        # A bias before a batch norm has a gradient of 0 that both round to 1e-16 of the others.
        floor = 1e-12 * whole if name.startswith("gradient of") else 1e-12
        assert (found[name] - value).norm() <= rtol * value.norm() + floor, name


def assert_as_near_in_float32(found, untouched, truth):
    # Rounding, amplified by up to 50 norms, is the yardstick: two orders of the same sums may differ in it by a factor.
    for part in IN_FLOAT32:
        assert distance(found, truth, part) <= 2 * distance(untouched, truth, part) + 1e-6, part


@pytest.mark.parametrize("name", NAMED)
def test_outputs_gradients_and_statistics_are_the_untouched_nets(name):
    model = build(name)
    x = images()
    plain = [measure(copy.deepcopy(model).to(dtype), x.to(dtype)) for dtype in (torch.float64, torch.float32)]
    fast = [measure(accelerated(model).to(dtype), x.to(dtype)) for dtype in (torch.float64, torch.float32)]
    assert_same_in_float64(fast[0], plain[0], HARD_GATES.get(name, 1e-10))
    assert_as_near_in_float32(fast[1], plain[1], plain[0])


@pytest.mark.parametrize("name", OWN)
def test_our_own_nets_compute_what_the_references_compute(name):
    model, x = build(name), images(side=32)
    with seattn.set_kernels("reference"):
        plain = [measure(copy.deepcopy(model).to(dtype), x.to(dtype)) for dtype in (torch.float64, torch.float32)]
    fast = [measure(copy.deepcopy(model).to(dtype), x.to(dtype)) for dtype in (torch.float64, torch.float32)]
    assert_same_in_float64(fast[0], plain[0])
    assert_as_near_in_float32(fast[1], plain[1], plain[0])


@pytest.mark.parametrize("name", ["seresnet18", "ecaresnet26t", "legacy_seresnet18", "mobilenetv3_small_100"])
def test_channels_last(name):
    model, x = build(name).double(), images(dtype=torch.float64)
    last = accelerated(model).to(memory_format=torch.channels_last)
    assert_same_in_float64(
        measure(last, x.to(memory_format=torch.channels_last)), measure(model, x), HARD_GATES.get(name, 1e-10)
    )


def losses(model, side, dtype, lr=1e-4):
    """Of 20 steps of SGD with momentum on one batch."""
    model.to(dtype).train()
    x, target = images(side=side, dtype=dtype), torch.tensor([3, 1, 2, 0])
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    found = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        found.append(loss.detach().double())
    return torch.stack(found)


def assert_trains_alike(plain, fast, name):
    # float64: in fp32 the losses of timm's own net in NCHW and in channels_last part by 20 to 40 % within 20 steps, so
    # that no bound would tell rounding from a wrong gradient. At higher rates they part in float64 too.
    rate = {"resnet50": 1e-5}.get(name, 1e-4)
    expected = losses(plain, 64, torch.float64, rate)
    assert expected[-1] < 0.9 * expected[0]  # it learns: the losses are not equal because nothing moves
    torch.testing.assert_close(losses(fast, 64, torch.float64, rate), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("name", "smaller"), QUICK_STEPS.items(), ids=QUICK_STEPS)
def test_20_steps_have_equal_losses(name, smaller):
    model = build(name, num_classes=10, **smaller)
    assert_trains_alike(model, accelerated(model), name)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # tf_efficientnetv2_s takes 2 min alone on one core
@pytest.mark.parametrize("name", ["seresnet18", *NAMED])
def test_20_steps_of_a_large_net_have_equal_losses(name):
    model = build(name, num_classes=10)
    assert_trains_alike(model, accelerated(model), name)


@pytest.mark.parametrize("name", OWN)
def test_20_steps_of_our_own_nets_have_the_losses_of_the_references(name):
    model = build(name)
    fast = copy.deepcopy(model)
    with seattn.set_kernels("reference"):
        expected = losses(model, 16, torch.float64, lr=1e-3)
    assert expected[-1] < 0.9 * expected[0]
    torch.testing.assert_close(losses(fast, 16, torch.float64, lr=1e-3), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OWN)
def test_20_steps_in_float32_of_our_own_nets(name):
    model = build(name)
    fast = copy.deepcopy(model)
    with seattn.set_kernels("reference"):
        expected = losses(model, 16, torch.float32)
    torch.testing.assert_close(losses(fast, 16, torch.float32), expected, rtol=1e-4, atol=0)
