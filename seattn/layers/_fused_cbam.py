"""timm's CBAM in two ops: the channel gate, then the spatial gate.

Woo et al., ECCV 2018, https://arxiv.org/abs/1807.06521. timm pools [mean, max] where the paper has [max, mean].
Shapes: B images, C channels, H x W pixels, R hidden channels.
"""

from typing import Any

from timm.layers import ConvNormAct
from timm.layers.cbam import CbamModule, ChannelAttn, SpatialAttn
from torch import Tensor, nn

from seattn.blocks.excitation import Reason, act_name, gate_name, is_pointwise
from seattn.blocks.fused.base import Fused, fused
from seattn.blocks.tail import norm_reason
from seattn.layers._norm import batch_norm_of
from seattn.layers._skip import may_skip
from seattn.ops._kernel import is_cpu_inference
from seattn.ops.cbam import cbam_spatial_gate
from seattn.ops.cbam_channel_gate import cbam_channel_gate


@fused(CbamModule)
class FusedCbamModule(Fused, CbamModule):
    """timm's CBAM."""

    def _run_fused(self: Any, x: Tensor) -> Tensor:
        # An empty batch passes through nn.BatchNorm2d; the op refuses it. For a single image on a CPU, what an op asks
        # takes longer than what it saves.
        plain = x.shape[0] == 0 or (x.shape[0] == 1 and is_cpu_inference(x))
        if plain or not may_skip(*self._modules.values()) or self._why_not(self) is not None:
            y: Tensor = self._plain(x)
            return y
        channel, spatial = self.channel, self.spatial
        w1, w2 = channel.fc1.weight.flatten(1), channel.fc2.weight.flatten(1)  # (R, C), (C, R)
        act, gate = act_name(channel.act), gate_name(channel.gate)
        assert act is not None
        assert gate is not None
        x = cbam_channel_gate(x, w1, channel.fc1.bias, w2, channel.fc2.bias, act=act, gate=gate)
        gate = gate_name(spatial.gate)
        assert gate is not None
        norm = batch_norm_of(spatial.conv.bn)
        return cbam_spatial_gate(
            x,
            spatial.conv.conv.weight,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=norm.training,
            momentum=norm.momentum,
            eps=norm.eps,
            gate=gate,
            max_first=False,
        )

    @staticmethod
    def _why_not(module: Any) -> Reason | None:
        channel, spatial = module.channel, module.spatial
        if type(channel) is not ChannelAttn or type(spatial) is not SpatialAttn:
            return f"made of {type(channel).__name__} and {type(spatial).__name__}"
        if not (is_pointwise(channel.fc1) and is_pointwise(channel.fc2)):
            return "a convolution of its channel gate is not a plain 1 x 1 nn.Conv2d"
        if act_name(channel.act) is None:
            return f"activation {type(channel.act).__name__}"
        for gate in (channel.gate, spatial.gate):
            if gate_name(gate) is None:
                return f"gate {type(gate).__name__}"
        if type(spatial.conv) is not ConvNormAct or spatial.conv.aa is not None or not _is_window(spatial.conv.conv):
            return "its spatial convolution is not a plain nn.Conv2d(2, 1, k) of odd k, padded by k // 2, without bias"
        return norm_reason(spatial.conv.bn)

    @staticmethod
    def _label(module: Any) -> str:
        watched = "" if may_skip(*module._modules.values()) else "; plain while hooks watch its parts"
        return "channel gate; spatial gate with its batch norm" + watched


def _is_window(conv: Any) -> bool:
    if type(conv) is not nn.Conv2d or conv.weight.shape[:2] != (1, 2) or conv.bias is not None:
        return False
    k = conv.kernel_size[0]
    return (
        k % 2 == 1
        and conv.kernel_size == (k, k)
        and conv.padding == (k // 2, k // 2)
        and conv.padding_mode == "zeros"
        and conv.stride == (1, 1)
        and conv.dilation == (1, 1)
    )
