"""CBAM: Convolutional Block Attention Module.

Woo et al., ECCV 2018, https://arxiv.org/abs/1807.06521, equations 1 to 3. Weights of timm.layers.CbamModule load
through `remap_timm_cbam`: timm pools in another order and has no biases.
Shapes: B images, C channels, H x W pixels, R hidden channels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from timm.models import register_notrace_function
from torch import nn

from seattn.layers._bottleneck import Bottleneck, bottleneck_width, remap_bottleneck
from seattn.layers._norm import batch_norm_of
from seattn.layers._registry import Paper, register_attn, require_two_sigmoid
from seattn.layers._watched import reads_weights
from seattn.ops import cbam_channel_gate, cbam_spatial_gate
from seattn.ops._tail.activations import check_names, gate_fn

register_notrace_function(cbam_channel_gate)  # fx keeps the op whole: which kernel runs is chosen when the graph runs


class ChannelAttn(Bottleneck):
    """y = x * gate(mlp(mean(x)) + mlp(max(x))), equation 2; one MLP C -> R -> C with ReLU for both poolings."""

    def __init__(
        self,
        channels: int,
        *,
        width: int,
        bias: bool = True,
        gate: str = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_names("relu", gate)
        super().__init__(channels, width, bias, device, dtype)
        self.gate_name = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():  # TorchScript knows neither autograd functions nor our choice of implementation
            return x * self._gate(x).to(x.dtype)
        if not reads_weights(self.fc1, self.fc2):
            return x * self._gate(x).to(x.dtype)
        w1, w2 = self.fc1.weight.flatten(1), self.fc2.weight.flatten(1)  # (R, C), (C, R)
        return cbam_channel_gate(x, w1, self.fc1.bias, w2, self.fc2.bias, gate=self.gate_name)  # (B, C, H, W)

    def _gate(self, x: torch.Tensor) -> torch.Tensor:
        mean, peak = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)  # (B, C, 1, 1) each
        return gate_fn(self.fc2(self.fc1(mean).relu()) + self.fc2(self.fc1(peak).relu()), self.gate_name)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """The factor of each channel, (B, C), that `forward` applies to x (B, C, H, W)."""
        return self._gate(x).flatten(1)


class SpatialAttn(nn.Module):
    """y = x * gate(bn(conv([max_c(x), mean_c(x)]))), equation 3, with the official code's batch norm.

    The convolution and the norm are called as modules, with more memory traffic, if `bn` has been replaced (by
    synchronised or frozen batch norm), if a part has hooks, under torch.fx and in TorchScript.
    """

    def __init__(
        self,
        kernel_size: int = 7,
        *,
        gate: str = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"spatial_kernel_size must be odd and at least 1, got {kernel_size}")
        check_names("identity", gate)
        self.gate_name = gate
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False, device=device, dtype=dtype)
        self.bn = nn.BatchNorm2d(1, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return self._by_modules(x)
        # torch.fx would record the norm's mode and batch count at the time of tracing; a module stays one node.
        # An empty batch passes through nn.BatchNorm2d; the op refuses it.
        if (
            isinstance(x, torch.fx.Proxy)
            or x.shape[0] == 0
            or type(self.bn) is not nn.BatchNorm2d
            or not reads_weights(self.conv, self.bn)
        ):
            return self._by_modules(x)
        norm = batch_norm_of(self.bn)
        return cbam_spatial_gate(
            x,
            self.conv.weight,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=norm.training,
            momentum=norm.momentum,
            eps=norm.eps,
            gate=self.gate_name,
        )

    def _by_modules(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)  # (B, 2, H, W)
        gate = gate_fn(self.bn(self.conv(pooled)), self.gate_name)  # (B, 1, H, W)
        return x * gate.to(x.dtype)  # (B, C, H, W)


_PAPER = Paper(
    "convolutional block attention",
    "Woo et al. 2018",
    "https://arxiv.org/abs/1807.06521",
    """@inproceedings{woo2018cbam,
  title = {CBAM: Convolutional Block Attention Module},
  author = {Woo, Sanghyun and Park, Jongchan and Lee, Joon-Young and Kweon, In So},
  booktitle = {ECCV},
  year = {2018}
}""",
)


@register_attn("cbam", _PAPER)
class Cbam(nn.Module):
    """Channel attention, then spatial attention, equation 1: which features matter, then where they matter.

    Args:
        channels: C of the input.
        rd_ratio: R / C, rounded to a multiple of `rd_divisor`.
        rd_channels: R itself; if given, `rd_ratio` is not used.
        rd_divisor: R is rounded to a multiple of it; 1 gives the paper's exact C/r.
        bias: whether the shared MLP has biases, as in the official code; timm's MLP has none.
        spatial_kernel_size: odd side of the spatial window.
        gate: the function of both gates: "sigmoid", "two_sigmoid" (2 * sigmoid: 1 where the logit is 0) or
            "hard_sigmoid".

    Shape: (B, C, H, W) -> (B, C, H, W).

    Raises:
        ValueError: if a number is out of range or the gate is unknown.
    """

    def __init__(
        self,
        channels: int,
        *,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        bias: bool = True,
        spatial_kernel_size: int = 7,
        gate: str = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        width = bottleneck_width(channels, rd_ratio, rd_channels, rd_divisor)
        self.channel = ChannelAttn(channels, width=width, bias=bias, gate=gate, device=device, dtype=dtype)
        self.spatial = SpatialAttn(spatial_kernel_size, gate=gate, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.spatial(self.channel(x))

    def start_at_identity(self) -> None:
        """Zero the MLP's last matrix and the spatial norm, so that every gate is exactly 1 and can learn.

        Raises:
            ValueError: unless gate="two_sigmoid".
        """
        require_two_sigmoid(self.channel.gate_name)
        last = [self.channel.fc2.weight, self.channel.fc2.bias, self.spatial.bn.weight, self.spatial.bn.bias]
        for tensor in last:
            if tensor is not None:
                nn.init.zeros_(tensor)

    def extra_repr(self) -> str:
        return f"gate={self.channel.gate_name}"


def remap_timm_cbam(state: Mapping[str, torch.Tensor], prefix: str = "", *, bias: bool = True) -> dict[str, Any]:
    """A copy of `state`, of timm's CbamModule under `prefix`, that loads into `Cbam` and gives the same outputs.

    timm pools [mean, max] where the paper has [max, mean], so the two input channels of the spatial convolution are
    swapped. timm's batch norm is `spatial.conv.bn`. timm's MLP has no biases; with `bias=True` zeros are added.
    """
    result = remap_bottleneck(state, f"{prefix}channel.")
    weight = result.pop(f"{prefix}spatial.conv.conv.weight")  # (1, 2, k, k)
    result[f"{prefix}spatial.conv.weight"] = weight.flip(1)
    for key in [key for key in result if key.startswith(f"{prefix}spatial.conv.bn.")]:
        result[key.replace("spatial.conv.bn.", "spatial.bn.")] = result.pop(key)
    for name in ("fc1", "fc2") if bias else ():
        weight = result[f"{prefix}channel.{name}.weight"]
        result.setdefault(f"{prefix}channel.{name}.bias", weight.new_zeros(weight.shape[0]))
    return result
