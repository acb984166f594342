"""The hand-written convolution over channels agrees with torch's."""

import pytest
import torch
import torch.nn.functional as F

from seattn.ops._tail.excitation import conv_over_channels


@pytest.mark.parametrize("taps", [1, 3, 5, 9])
@pytest.mark.parametrize("channels", [1, 2, 7, 64])
@pytest.mark.parametrize("images", [0, 1, 2, 9])
def test_the_convolution_over_channels_is_conv1d(images, channels, taps):
    torch.manual_seed(0)
    p, w = torch.randn(images, channels, dtype=torch.float64), torch.randn(taps, dtype=torch.float64)
    want = F.conv1d(p.unsqueeze(1), w.view(1, 1, -1), padding=taps // 2).squeeze(1)
    torch.testing.assert_close(conv_over_channels(p, w), want)
