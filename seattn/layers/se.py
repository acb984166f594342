"""SE: Squeeze-and-Excitation.

Hu et al., CVPR 2018, https://arxiv.org/abs/1709.01507, equations 2 to 4. Parameter names as in timm.layers.SEModule:
weights load both ways; `fc.0`/`fc.2` (Linear) and `conv_reduce`/`conv_expand` are remapped while loading.
Shapes: B images, C channels, H x W pixels, R hidden channels.
"""

import torch
from timm.models import register_notrace_function
from torch import nn

from seattn.layers._bottleneck import Bottleneck, bottleneck_width
from seattn.layers._registry import Paper, register_attn, require_two_sigmoid
from seattn.layers._watched import reads_weights
from seattn.ops import squeeze_excite, squeeze_excite_gate_reference, squeeze_excite_reference
from seattn.ops._tail.activations import act_fn, check_names, gate_fn

register_notrace_function(squeeze_excite)  # fx keeps the op whole: which kernel runs is chosen when the graph runs


_PAPER = Paper(
    "squeeze-and-excitation",
    "Hu et al. 2018",
    "https://arxiv.org/abs/1709.01507",
    """@inproceedings{hu2018squeeze,
  title = {Squeeze-and-Excitation Networks},
  author = {Hu, Jie and Shen, Li and Sun, Gang},
  booktitle = {CVPR},
  year = {2018}
}""",
)


@register_attn("se", _PAPER)
class SqueezeExcite(Bottleneck):
    """y = x * gate(W2 act(W1 mean(x) + b1) + b2): the means of all channels give the gate of each channel.

    Args:
        channels: C of the input.
        rd_ratio: R / C, rounded to a multiple of `rd_divisor`.
        rd_channels: R itself; if given, `rd_ratio` is not used.
        rd_divisor: R is a multiple of this number; 1 gives the paper's exact C/r, timm's SEModule uses 8.
        bias: whether the two matrices have biases.
        act: "relu", "silu", "gelu", "hard_swish" or "identity", between the two matrices.
        gate: "sigmoid", "two_sigmoid" (2 * sigmoid: 1 where the logit is 0) or "hard_sigmoid".

    Shape: (B, C, H, W) -> (B, C, H, W).

    Raises:
        ValueError: if a name is unknown or a number is out of range.
    """

    def __init__(
        self,
        channels: int,
        *,
        rd_ratio: float = 1 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        bias: bool = True,
        act: str = "relu",
        gate: str = "sigmoid",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_names(act, gate)
        super().__init__(channels, bottleneck_width(channels, rd_ratio, rd_channels, rd_divisor), bias, device, dtype)
        self.act_name = act
        self.gate_name = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w1, w2 = self.fc1.weight.flatten(1), self.fc2.weight.flatten(1)  # (R, C), (C, R)
        if torch.jit.is_scripting():  # TorchScript knows neither autograd functions nor our choice of kernel
            return squeeze_excite_reference(x, w1, self.fc1.bias, w2, self.fc2.bias, self.act_name, self.gate_name)
        if not reads_weights(self.fc1, self.fc2):
            return x * self._gate_by_modules(x).to(x.dtype)
        return squeeze_excite(x, w1, self.fc1.bias, w2, self.fc2.bias, act=self.act_name, gate=self.gate_name)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """The factor of each channel, (B, C) in fp32, that `forward` applies to x (B, C, H, W)."""
        if not reads_weights(self.fc1, self.fc2):
            return self._gate_by_modules(x).flatten(1).float()
        w1, w2 = self.fc1.weight.flatten(1), self.fc2.weight.flatten(1)
        return squeeze_excite_gate_reference(
            x, w1, self.fc1.bias, w2, self.fc2.bias, act=self.act_name, gate=self.gate_name
        )

    def _gate_by_modules(self, x: torch.Tensor) -> torch.Tensor:
        hidden = act_fn(self.fc1(x.mean((2, 3), keepdim=True)), self.act_name)  # (B, R, 1, 1)
        return gate_fn(self.fc2(hidden), self.gate_name)  # (B, C, 1, 1)

    def start_at_identity(self) -> None:
        """Set the weights so that every gate is exactly 1 and can learn; ValueError unless gate="two_sigmoid"."""
        require_two_sigmoid(self.gate_name)
        nn.init.zeros_(self.fc2.weight)
        if self.fc2.bias is not None:
            nn.init.zeros_(self.fc2.bias)

    def extra_repr(self) -> str:
        return f"act={self.act_name}, gate={self.gate_name}"
