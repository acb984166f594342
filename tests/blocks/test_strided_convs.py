"""Narrow 1 x 1 convolutions with a stride: the same values without oneDNN's faulty gradient."""

import copy
import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from seattn.blocks.strided_convs import take_strides_out


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("options", [{"stride": 2}, {"stride": (1, 3)}, {"stride": 2, "groups": 2, "bias": False}])
def test_outputs_gradients_and_state_dict_stay(options, side):
    """In float64, which oneDNN does not compute."""
    conv = nn.Conv2d(6, 4, 1, **options).double()
    changed = nn.Sequential(copy.deepcopy(conv))
    assert take_strides_out(changed) == 1
    changed = copy.deepcopy(changed)  # as the average of the weights does
    assert changed[0].state_dict().keys() == conv.state_dict().keys()
    inputs = [torch.randn(2, 6, side, side, dtype=torch.float64).requires_grad_()]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    outputs = [net(x) for net, x in zip((conv, changed), inputs, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0])
    grad = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(grad)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    torch.testing.assert_close(changed[0].weight.grad, conv.weight.grad)


@pytest.mark.parametrize(
    "conv",
    [nn.Conv2d(16, 4, 1, 2), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 1, 2, padding=1)],
    ids=["wide", "stride 1", "3 x 3", "padded"],
)
def test_other_convolutions_are_left_alone(conv):
    assert take_strides_out(conv) == 0


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "se_resnet18", "resnet50"])
def test_nets_of_usual_widths_have_none(name):
    assert take_strides_out(timm.create_model(name)) == 0


@pytest.mark.parametrize("channels", [1, 3, 5, 7, 11, 15])
def test_the_gradient_in_channels_last_is_right(channels):
    """In a process of its own: without the change, it is aborted on CPUs with the fault."""
    code = f"""
import torch
from seattn.blocks.strided_convs import take_strides_out
for _ in range(100):
    conv = torch.nn.Conv2d({channels}, 16, 1, 2, bias=False)
    x = torch.randn(8, {channels}, 32, 32)
    exact = torch.nn.functional.conv2d(x.double(), weight := conv.weight.detach().double().requires_grad_(), stride=2)
    take_strides_out(conv)
    y = conv.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last).requires_grad_())
    grad = torch.randn_like(y)
    y.backward(grad)
    exact.backward(grad.double())
    torch.testing.assert_close(conv.weight.grad.double(), weight.grad, rtol=1e-4, atol=1e-3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
