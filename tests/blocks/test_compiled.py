"""Nets under torch.compile: one graph without breaks, which batches and images of other sizes do not compile again."""

import time
from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import seattn
from seattn.layers import get_attn, list_attn
from tests.helpers.nets import build, images

NAMES = (
    "cbam_resnet20_cifar",
    "eca_resnet20_cifar",
    "se_preact_resnet18_cifar",
    "se_wrn16_8_cifar",
    "mobilenetv2_cifar",
)
SMALL = {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 16), "num_classes": 5}


def own():
    return timm.create_model("se_resnet14_cifar")


def accelerated():
    return seattn.accelerate(build("seresnet18", **SMALL), verbose=False)


def added():
    return seattn.add_attention(timm.create_model("resnet18", **SMALL), "eca")


def folded():
    return seattn.accelerate(build("seresnet18", **SMALL).eval(), fold=True, verbose=False)


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def graphs(net, shapes, *, training, dynamic, amp=False):
    """The number of graphs that were compiled for each of these (images, side) in turn; a break is an error.

    With `amp`, the nets compute under autocast in bfloat16.
    """
    counter = CompileCounter()
    net.train(training)
    compiled = torch.compile(net, backend=counter, fullgraph=True, dynamic=dynamic)
    counts = []
    for count, side in shapes:
        with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16, enabled=amp):
            y = compiled(images(count, side))
        if training:
            y.sum().backward()
        counts.append(counter.frame_count)
    return counts


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(
    "make",
    [own, accelerated, added, folded, *(partial(timm.create_model, name) for name in NAMES)],
    ids=["own", "accelerated", "added", "folded", *NAMES],
)
def test_a_dynamic_graph_is_compiled_once(make, training):
    if make is folded and training:
        pytest.skip("folds are for inference")
    shapes = ((2, 64), (3, 64), (5, 96))  # no last map of one pixel, a size for which torch always compiles again
    assert graphs(make(), shapes, training=training, dynamic=True) == [1, 1, 1]


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("make", [own, accelerated], ids=lambda make: make.__name__)
def test_a_second_batch_size_compiles_the_last_graph(make, training):
    assert graphs(make(), ((2, 32), (3, 32), (5, 32)), training=training, dynamic=None) == [1, 2, 2]


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("make", [own, accelerated, added], ids=lambda make: make.__name__)
def test_autocast_compiles_a_dynamic_graph_once(make, training):
    assert graphs(make(), ((2, 64), (3, 64), (5, 96)), training=training, dynamic=True, amp=True) == [1, 1, 1]


@pytest.mark.parametrize("name", list_attn())
def test_inductor_trains_on_a_second_image_size(name):
    """Where height and width become symbols, inductor must still order the strides of each map."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), get_attn(name)(16))
    compiled = torch.compile(net, fullgraph=True)
    for side in (24, 32):
        x = images(2, side)
        y = compiled(x)
        torch.testing.assert_close(y, net(x), rtol=1e-4, atol=1e-5)
        y.sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_inductor_compiles_a_dynamic_graph_in_bounded_time(training):
    """A graph that grew with the shapes would take many times as long."""
    net = own().train(training)
    compiled = torch.compile(net, fullgraph=True, dynamic=True)
    start = time.perf_counter()
    with torch.set_grad_enabled(training):
        for count in (2, 5):
            y = compiled(images(count, 32))
            if training:
                y.sum().backward()
    assert time.perf_counter() - start < 300  # seconds, on a busy machine
