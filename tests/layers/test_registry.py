import pytest
import timm
import torch
from torch import nn

from seattn.layers import create_attn, get_attn, list_attn, register_attn
from seattn.layers._registry import _ATTN


def test_lists_the_three_layers():
    assert {"cbam", "eca", "se"} <= set(list_attn())


def test_unknown_name_raises_and_lists_what_exists():
    with pytest.raises(ValueError, match=r"unknown attention layer 'sse'; registered: .*cbam, eca, se"):
        get_attn("sse")
    with pytest.raises(ValueError, match="'sse'"):
        create_attn("sse", 8)


def test_duplicate_name_raises_and_keeps_the_first():
    first = get_attn("se")
    with pytest.raises(ValueError, match=r"'se' exists already: SqueezeExcite"):
        register_attn("se")(nn.Identity)
    assert get_attn("se") is first


def test_a_registered_layer_can_be_made_by_name(monkeypatch):
    monkeypatch.setitem(_ATTN, "taken_back_afterwards", nn.Identity)  # so that the registry is restored
    monkeypatch.delitem(_ATTN, "taken_back_afterwards")

    @register_attn("taken_back_afterwards")
    class Halve(nn.Module):
        def __init__(self, channels, *, factor=0.5):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return x * self.factor

    assert create_attn("taken_back_afterwards", 4, factor=0.25)(torch.ones(1)).item() == 0.25


@pytest.mark.parametrize("name", list_attn())
def test_unknown_keyword_is_a_type_error(name):
    with pytest.raises(TypeError, match="reduction"):
        create_attn(name, 16, reduction=16)


@pytest.mark.parametrize("name", list_attn())
@pytest.mark.parametrize(
    "options", [{"device": "meta"}, {"dtype": torch.float64}, {"device": "meta", "dtype": torch.bfloat16}]
)
def test_device_and_dtype_reach_every_parameter_and_buffer(name, options):
    layer = create_attn(name, 16, **options)
    tensors = [t for t in [*layer.parameters(), *layer.buffers()] if t.is_floating_point()]
    assert tensors
    for tensor in tensors:
        assert tensor.device.type == options.get("device", "cpu")
        assert tensor.dtype == options.get("dtype", torch.float32)


@pytest.mark.parametrize("name", list_attn())
def test_goes_into_a_timm_model_as_attn_layer(name):
    model = timm.create_model("resnet18", block_args={"attn_layer": get_attn(name)}, num_classes=3)
    kinds = {type(module) for module in model.modules()}
    assert get_attn(name) in kinds
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3)


@pytest.mark.parametrize("name", list_attn())
@pytest.mark.parametrize("shape", [(0, 16, 5, 7), (1, 16, 1, 1), (3, 16, 7, 33)])
def test_keeps_shape_dtype_and_memory_format(name, shape):
    layer = create_attn(name, 16).eval()
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
        y = layer.to(dtype)(x)
        assert y.shape == x.shape
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", list_attn())
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    layer = create_attn(name, 16, **({} if name == "eca" else {"rd_channels": 16}))  # one hidden unit may well be dead
    layer(torch.randn(4, 16, 5, 5)).square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", ["se", "eca"])
def test_gate_is_the_factor_that_forward_applies(name):
    layer = create_attn(name, 16)
    x = torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(layer(x), x * layer.gate(x)[:, :, None, None])


@pytest.mark.parametrize("name", list_attn())
def test_scripts_to_the_same_function(name):
    layer = create_attn(name, 16).eval()
    x = torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(torch.jit.script(layer)(x), layer(x))
