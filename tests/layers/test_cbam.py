import copy

import pytest
import torch
from timm.layers.cbam import CbamModule
from torch import nn

from seattn.layers import Cbam, remap_timm_cbam


def timm_cbam(channels):
    """timm's module after a forward in training, so that its running statistics are not the initial ones."""
    layer = CbamModule(channels).train()
    layer(torch.randn(8, channels, 9, 9))
    return layer.eval()


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
def test_timm_weights_compute_the_same_after_the_remap(bias):
    timm_layer = timm_cbam(32)
    ours = Cbam(32, bias=bias).eval()
    ours.load_state_dict(remap_timm_cbam(timm_layer.state_dict(), bias=bias), strict=True)
    x = torch.randn(2, 32, 7, 11)
    torch.testing.assert_close(ours(x), timm_layer(x))


def test_remap_works_under_a_prefix_and_leaves_other_keys():
    net = nn.Sequential(nn.Conv2d(3, 32, 1), timm_cbam(32)).eval()
    ours = nn.Sequential(nn.Conv2d(3, 32, 1), Cbam(32)).eval()
    ours.load_state_dict(remap_timm_cbam(net.state_dict(), "1."), strict=True)
    x = torch.randn(2, 3, 7, 11)
    torch.testing.assert_close(ours(x), net(x))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_an_empty_batch_passes_through(training):
    """As through timm's layer and torch's batch norm, whose running statistics it leaves alone."""
    layer, x = Cbam(8).train(training), torch.zeros(0, 8, 5, 3, requires_grad=True)
    mean, var = layer.spatial.bn.running_mean.clone(), layer.spatial.bn.running_var.clone()
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.grad.shape == x.shape
    assert not any(p.grad.any() for p in layer.parameters())
    assert torch.equal(layer.spatial.bn.running_mean, mean)
    assert torch.equal(layer.spatial.bn.running_var, var)


def test_order_of_pooling_is_the_papers():
    """The remap's swap is needed: without it the two disagree."""
    timm_layer = timm_cbam(32)
    state = remap_timm_cbam(timm_layer.state_dict())
    state["spatial.conv.weight"] = state["spatial.conv.weight"].flip(1)
    ours = Cbam(32).eval()
    ours.load_state_dict(state)
    x = torch.randn(2, 32, 7, 11)
    assert not torch.allclose(ours(x), timm_layer(x), atol=1e-3)


def test_matches_the_equations_written_out():
    layer = Cbam(8, rd_channels=3).eval()
    x = torch.randn(2, 8, 5, 5)
    w1, b1 = layer.channel.fc1.weight.flatten(1), layer.channel.fc1.bias
    w2, b2 = layer.channel.fc2.weight.flatten(1), layer.channel.fc2.bias

    def mlp(v):
        return (v @ w1.T + b1).clamp(min=0) @ w2.T + b2

    channel = torch.sigmoid(mlp(x.mean((2, 3))) + mlp(x.amax((2, 3))))
    gated = x * channel[:, :, None, None]
    pooled = torch.stack([gated.max(1).values, gated.mean(1)], 1)
    spatial = torch.sigmoid(layer.spatial.bn(layer.spatial.conv(pooled)))
    torch.testing.assert_close(layer(x), gated * spatial)
    torch.testing.assert_close(layer.channel.gate(x), channel)


@pytest.mark.parametrize("size", [0, 4])
def test_even_window_is_named(size):
    with pytest.raises(ValueError, match=f"spatial_kernel_size must be odd and at least 1, got {size}"):
        Cbam(16, spatial_kernel_size=size)


class OtherNorm(nn.BatchNorm2d):
    """Batch norm of another type, as a synchronised one is."""


def by_modules(layer):
    """A copy that runs convolution and norm as modules, under autograd."""
    changed = copy.deepcopy(layer)
    changed.spatial.bn.__class__ = OtherNorm
    return changed


def step(layer, x):
    """The output, every gradient, and the buffers afterwards."""
    x = x.clone().requires_grad_()
    y = layer(x)
    dy = torch.linspace(-1, 2, y.numel()).view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], dy), *layer.buffers()]


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"track_running_stats": False}, {"affine": False}], ids=str
)
def test_training_and_running_statistics_are_those_of_the_modules(options):
    ours = Cbam(16, rd_channels=3)
    ours.spatial.bn = nn.BatchNorm2d(1, **options)
    plain = by_modules(ours)
    generator = torch.Generator().manual_seed(0)
    for mode in (True, True, False, True):
        x = torch.randn(4, 16, 7, 5, generator=generator)
        results = zip(step(ours.train(mode), x), step(plain.train(mode), x), strict=True)
        for a, b in results:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("trace", [torch.jit.script, torch.fx.symbolic_trace], ids=["script", "fx"])
def test_traced_layer_computes_the_same_and_keeps_its_mode(trace, training):
    layer = Cbam(16, rd_channels=3)
    traced = trace(copy.deepcopy(layer))
    for module in (layer, traced):
        module.train(training)
    x = torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(traced(x), layer(x))
    for name, buffer in layer.named_buffers():
        torch.testing.assert_close(dict(traced.named_buffers())[name], buffer)
