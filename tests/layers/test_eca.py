import pytest
import torch
from timm.layers import EcaModule

from seattn.layers import EfficientChannelAttn, eca_kernel_size


@pytest.mark.parametrize(("channels", "size"), [(1, 3), (16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)])
def test_kernel_size_follows_the_paper(channels, size):
    assert eca_kernel_size(channels) == size
    assert EfficientChannelAttn(channels).conv.kernel_size == (size,)


def test_given_kernel_size_wins():
    assert EfficientChannelAttn(64, kernel_size=9).conv.kernel_size == (9,)


@pytest.mark.parametrize("size", [0, 2, -1])
def test_even_or_small_kernel_size_is_named(size):
    with pytest.raises(ValueError, match=f"odd and at least 1, got {size}"):
        EfficientChannelAttn(64, kernel_size=size)


def test_no_channels_is_named():
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        EfficientChannelAttn(0)


@pytest.mark.parametrize("channels", [16, 64, 2048])
def test_weights_go_both_ways_with_timm(channels):
    timm_layer, ours = EcaModule(channels), EfficientChannelAttn(channels)
    ours.load_state_dict(timm_layer.state_dict(), strict=True)
    timm_layer.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(2, channels, 5, 7)
    torch.testing.assert_close(ours(x), timm_layer(x))


def test_a_gate_sees_only_its_neighbours():
    layer = EfficientChannelAttn(9, kernel_size=3)
    x = torch.randn(1, 9, 4, 4)
    near = x.clone()
    near[:, 4] += 1
    moved = (layer.gate(near) != layer.gate(x)).squeeze(0)
    assert moved.nonzero().flatten().tolist() == [3, 4, 5]
