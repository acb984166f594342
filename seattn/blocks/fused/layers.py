"""Attention modules of timm and torchvision whose `forward` is one op, on the module's own parameters.

timm's CBAM in two ops: the channel gate, then the spatial gate.
Woo et al., ECCV 2018, https://arxiv.org/abs/1807.06521. timm pools [mean, max] where the paper has [max, mean].
Shapes: B images, C channels, H x W pixels, R hidden channels.
"""

from typing import Any

from timm.layers import ConvNormAct, EcaModule, EffectiveSEModule, SEModule
from timm.layers.cbam import CbamModule, ChannelAttn, SpatialAttn
from timm.models import senet
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from seattn.blocks.excitation import LABELS, Reason, act_name, add_reader, excitation_of, gate_name
from seattn.blocks.fused.base import Fused, fused
from seattn.blocks.tail import norm_reason
from seattn.layers._norm import batch_norm_of
from seattn.layers._watched import is_pointwise, may_skip
from seattn.ops._kernel import is_cpu_inference_in_any_dtype
from seattn.ops._tail.run import run
from seattn.ops.cbam import cbam_channel_gate, cbam_spatial_gate


class _Attention(Fused):
    """x * gate(excite(mean(x))). A subclass has the reader of its plain class: the tail of a block may contain it."""

    def __init_subclass__(cls) -> None:
        add_reader(cls, like=cls.__bases__[1])

    def _run_fused(self: Any, x: Tensor) -> Tensor:
        # In inference on a CPU the op saves nothing, and its code is not in the caches.
        if is_cpu_inference_in_any_dtype(x):
            return self._plain(x)
        e = excitation_of(self)
        if isinstance(e, Reason) or not may_skip(*self._modules.values()):  # changed since it was accelerated
            return self._plain(x)
        return run(x, None, e, None, "identity")

    @staticmethod
    def _why_not(module: Any) -> Reason | None:
        e = excitation_of(module)
        return e if isinstance(e, Reason) else None

    @staticmethod
    def _label(module: Any) -> str:
        e = excitation_of(module)
        assert not isinstance(e, Reason)
        watched = "" if may_skip(*module._modules.values()) else "; plain while hooks watch its parts"
        return LABELS[e.kind] + watched


@fused(SEModule)
class FusedSEModule(_Attention, SEModule):
    """timm's SE: ResNets, RegNets, ..."""


@fused(EffectiveSEModule)
class FusedEffectiveSEModule(_Attention, EffectiveSEModule):
    """timm's effective SE: VoVNets."""


@fused(EcaModule)
class FusedEcaModule(_Attention, EcaModule):
    """timm's ECA."""


@fused(SqueezeExcite)
class FusedSqueezeExcite(_Attention, SqueezeExcite):
    """timm's SE of EfficientNets and MobileNets."""


@fused(senet.SEModule)
class FusedLegacySEModule(_Attention, senet.SEModule):
    """timm's SE of the legacy SENets."""


@fused(SqueezeExcitation)
class FusedSqueezeExcitation(_Attention, SqueezeExcitation):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's SE."""


@fused(CbamModule)
class FusedCbamModule(Fused, CbamModule):
    """timm's CBAM."""

    def _run_fused(self: Any, x: Tensor) -> Tensor:
        # The op refuses an empty batch, which nn.BatchNorm2d accepts. For a single image on a CPU, the checks of an op
        # take longer than the op saves.
        plain = x.shape[0] == 0 or (x.shape[0] == 1 and is_cpu_inference_in_any_dtype(x))
        if plain or not may_skip(*self._modules.values()) or self._why_not(self) is not None:
            return self._plain(x)
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
