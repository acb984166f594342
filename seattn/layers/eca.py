"""ECA: Efficient Channel Attention.

Wang et al., CVPR 2020, https://arxiv.org/abs/1910.03151, equations 9 and 12. Parameter names as in
timm.layers.EcaModule: weights load both ways.
Shapes: B images, C channels, H x W pixels.
"""

import math

import torch
from torch import nn

from seattn.layers._registry import Paper, register_attn, require_two_sigmoid
from seattn.layers._watched import reads_weights
from seattn.ops import efficient_channel_attn
from seattn.ops._tail.activations import check_names, gate_fn


def eca_kernel_size(channels: int, *, gamma: float = 2.0, beta: float = 1.0) -> int:
    """The paper's equation 12: (log2(C) + beta) / gamma, truncated, then made odd and at least 3.

    Raises:
        ValueError: if channels is below 1.
    """
    if channels < 1:
        raise ValueError(f"channels must be at least 1, got {channels}")
    t = int(abs(math.log2(channels) + beta) / gamma)
    return max(t if t % 2 else t + 1, 3)


_PAPER = Paper(
    "efficient channel attention",
    "Wang et al. 2020",
    "https://arxiv.org/abs/1910.03151",
    """@inproceedings{wang2020eca,
  title = {ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks},
  author = {Wang, Qilong and Wu, Banggu and Zhu, Pengfei and Li, Peihua and Zuo, Wangmeng and Hu, Qinghua},
  booktitle = {CVPR},
  year = {2020}
}""",
)


@register_attn("eca", _PAPER)
class EfficientChannelAttn(nn.Module):
    """y = x * gate(conv1d(mean(x))): a channel is gated by the means of its k neighbours.

    Args:
        channels: C of the input; sets the kernel size unless one is given.
        kernel_size: odd number of neighbouring channels that one gate sees.
        gate: "sigmoid", "two_sigmoid" (2 * sigmoid: 1 where the logit is 0) or "hard_sigmoid".

    Shape: (B, C, H, W) -> (B, C, H, W).

    Raises:
        ValueError: if kernel_size is even or below 1, or the gate is unknown.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int | None = None,
        gate: str = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_names("identity", gate)
        self.gate_name = gate
        k = eca_kernel_size(channels) if kernel_size is None else kernel_size
        if k < 1 or k % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 1, got {k}")
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():  # TorchScript knows neither autograd functions nor our choice of implementation
            return x * self.gate(x)[:, :, None, None].to(x.dtype)
        if not reads_weights(self.conv):
            return x * self.gate(x)[:, :, None, None].to(x.dtype)
        return efficient_channel_attn(x, self.conv.weight.flatten(), gate=self.gate_name)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """The factor of each channel, (B, C), that `forward` applies to x (B, C, H, W)."""
        return gate_fn(self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1), self.gate_name)

    def start_at_identity(self) -> None:
        """Set the weights so that every gate is exactly 1 and can learn; ValueError unless gate="two_sigmoid"."""
        require_two_sigmoid(self.gate_name)
        nn.init.zeros_(self.conv.weight)

    def extra_repr(self) -> str:
        return f"gate={self.gate_name}"
