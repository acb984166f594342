import pytest
import torch
from timm.layers import SEModule
from timm.layers.squeeze_excite import SEModule as TimmSE
from torch import nn

from seattn.layers import SqueezeExcite, remap_bottleneck


class LinearSE(nn.Module):
    """The form of moskomule/senet.pytorch: `fc` is a Sequential of two Linears without bias."""

    def __init__(self, channels, reduction):
        super().__init__()
        hidden = channels // reduction
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x):
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


@pytest.mark.parametrize(
    ("channels", "options", "hidden"),
    [
        (16, {}, 1),
        (64, {}, 4),
        (24, {"rd_ratio": 1 / 16}, 2),
        (8, {"rd_ratio": 1 / 16}, 1),
        (16, {"rd_divisor": 8}, 8),
        (64, {"rd_divisor": 8}, 8),
        (16, {"rd_channels": 5}, 5),
        (16, {"rd_ratio": 1 / 4, "rd_channels": 3, "rd_divisor": 8}, 3),
    ],
)
def test_hidden_width(channels, options, hidden):
    layer = SqueezeExcite(channels, **options)
    assert layer.fc1.weight.shape == (hidden, channels, 1, 1)
    assert layer.fc2.weight.shape == (channels, hidden, 1, 1)


@pytest.mark.parametrize("channels", [16, 64, 256])
def test_loads_timm_state_strictly_and_computes_the_same(channels):
    timm_layer = SEModule(channels)
    ours = SqueezeExcite(channels, rd_divisor=8)
    ours.load_state_dict(timm_layer.state_dict(), strict=True)
    x = torch.randn(3, channels, 7, 5)
    torch.testing.assert_close(ours(x), timm_layer(x))


def test_timm_loads_our_state_strictly():
    ours, timm_layer = SqueezeExcite(32), TimmSE(32, rd_divisor=1)
    timm_layer.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(3, 32, 7, 5)
    torch.testing.assert_close(ours(x), timm_layer(x))


def test_loads_linear_form_strictly_and_computes_the_same():
    timm_layer = LinearSE(32, 8)
    ours = SqueezeExcite(32, rd_ratio=1 / 8, bias=False)
    ours.load_state_dict(timm_layer.state_dict(), strict=True)
    x = torch.randn(3, 32, 7, 5)
    torch.testing.assert_close(ours(x), timm_layer(x))


def test_loads_linear_form_inside_a_net():
    timm_layer = nn.Sequential(nn.Conv2d(3, 32, 1), LinearSE(32, 8))
    ours = nn.Sequential(nn.Conv2d(3, 32, 1), SqueezeExcite(32, rd_ratio=1 / 8, bias=False))
    ours.load_state_dict(timm_layer.state_dict(), strict=True)
    x = torch.randn(3, 3, 7, 5)
    torch.testing.assert_close(ours(x), timm_layer(x))


def test_loads_conv_reduce_and_conv_expand():
    ours, copy = SqueezeExcite(32), SqueezeExcite(32)
    names = {"fc1": "conv_reduce", "fc2": "conv_expand"}
    copy.load_state_dict({f"{names[k[:3]]}{k[3:]}": v for k, v in ours.state_dict().items()}, strict=True)
    x = torch.randn(3, 32, 7, 5)
    torch.testing.assert_close(ours(x), copy(x))


def test_remap_leaves_the_given_state_and_our_own_names_alone():
    state = LinearSE(32, 8).state_dict()
    before = list(state)
    assert sorted(remap_bottleneck(state)) == ["fc1.weight", "fc2.weight"]
    assert list(state) == before
    own = SqueezeExcite(32).state_dict()
    assert all(remap_bottleneck(own)[key] is value for key, value in own.items())


def test_a_state_without_or_with_biases_says_how_to_build_the_layer():
    without = LinearSE(32, 8).state_dict()
    layer = SqueezeExcite(32, rd_ratio=1 / 8)
    with pytest.raises(RuntimeError, match="this state has no biases: build the layer with bias=False"):
        layer.load_state_dict(without)
    inner = {f"1.{key}": value for key, value in without.items()}
    with pytest.raises(RuntimeError, match="the state of 1 has no biases: build the layer with bias=False"):
        nn.Sequential(nn.Identity(), layer).load_state_dict(inner)
    with pytest.raises(RuntimeError, match="this state has biases: build the layer with bias=True"):
        SqueezeExcite(32, rd_ratio=1 / 8, bias=False).load_state_dict(layer.state_dict())
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "fc1.bias"\. *$'):
        layer.load_state_dict({key: value for key, value in layer.state_dict().items() if key != "fc1.bias"})


def test_a_state_without_biases_loads_where_strict_is_false():
    layer = SqueezeExcite(32, rd_ratio=1 / 8)
    state = LinearSE(32, 8).state_dict()
    found = layer.load_state_dict(state, strict=False)
    assert {"fc1.bias", "fc2.bias"} < set(found.missing_keys)
    assert torch.equal(layer.fc1.weight.flatten(1), state["fc.0.weight"])


def test_two_sigmoid_with_zero_last_layer_is_the_identity():
    layer = SqueezeExcite(16, gate="two_sigmoid")
    nn.init.zeros_(layer.fc2.weight)
    nn.init.zeros_(layer.fc2.bias)
    x = torch.randn(2, 16, 5, 5)
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"act": "rleu"}, "'rleu'"),
        ({"gate": "softmax"}, "'softmax'"),
        ({"rd_ratio": 0}, "rd_ratio must be above 0"),
        ({"rd_channels": 0}, "rd_channels must be at least 1"),
        ({"rd_divisor": 0}, "rd_divisor must be at least 1"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SqueezeExcite(16, **options)
