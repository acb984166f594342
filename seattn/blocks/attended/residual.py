"""The residual blocks of timm and torchvision that can get attention: their branch, shortcut and addition.

A class says where the block's first and last convolution are, what its branch computes, and how branch and shortcut are
joined. These are methods, because TorchScript compiles them.
Shapes: B images, C channels, H x W pixels.
"""

from typing import Any

from timm.models import regnet as timm_regnet
from timm.models import resnet as timm_resnet
from timm.models import resnetv2 as timm_resnetv2
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn
from torchvision.models import mobilenetv2 as torchvision_mobilenetv2
from torchvision.models import regnet as torchvision_regnet
from torchvision.models import resnet as torchvision_resnet

from seattn.blocks.attended.base import NO_ACT, Attended, Channels, attended
from seattn.blocks.fused.residual import (
    FusedBasicBlock,
    FusedBottleneck,
    FusedTorchvisionBasicBlock,
    FusedTorchvisionBottleneck,
)


class _BasicBranch(Attended):
    _last = "conv2"

    def _residual(self: Any, x: Tensor) -> Tensor:
        return self.bn2(self._branch(x))


class _BottleneckBranch(Attended):
    _last = "conv3"

    def _residual(self: Any, x: Tensor) -> Tensor:
        return self.bn3(self._branch(x))


@attended(timm_resnet.BasicBlock)
class AttendedBasicBlock(_BasicBranch, FusedBasicBlock):
    """timm's BasicBlock."""

    _has_own_place = True

    def _join(self, y: Tensor, shortcut: Tensor) -> Tensor:
        if self.drop_path is not None:
            y = self.drop_path(y)
        return self.act2(y + shortcut)

    def _after(self) -> tuple[nn.Module | None, nn.Module]:
        return self.drop_path, self.act2


@attended(timm_resnet.Bottleneck)
class AttendedBottleneck(_BottleneckBranch, FusedBottleneck):
    """timm's Bottleneck: ResNet, ResNeXt, WRN."""

    _has_own_place = True

    def _join(self, y: Tensor, shortcut: Tensor) -> Tensor:
        if self.drop_path is not None:
            y = self.drop_path(y)
        return self.act3(y + shortcut)

    def _after(self) -> tuple[nn.Module | None, nn.Module]:
        return self.drop_path, self.act3


class _TorchvisionEnd(Attended):
    def _join(self: Any, y: Tensor, shortcut: Tensor) -> Tensor:
        return self.relu(y + shortcut)

    def _after(self: Any) -> tuple[nn.Module | None, nn.Module]:
        return None, self.relu


@attended(torchvision_resnet.BasicBlock)
class AttendedTorchvisionBasicBlock(_BasicBranch, _TorchvisionEnd, FusedTorchvisionBasicBlock):
    """torchvision's BasicBlock."""


@attended(torchvision_resnet.Bottleneck)
class AttendedTorchvisionBottleneck(_BottleneckBranch, _TorchvisionEnd, FusedTorchvisionBottleneck):
    """torchvision's Bottleneck: ResNet, ResNeXt, WRN."""


class _PreActBlock(Attended):
    """The shortcut of a block that changes shape starts after the first norm; attention "pre" is applied there too."""

    def _enter(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.norm1(x)  # (B, C, H, W)
        return inner, (x if self.downsample is None else self.downsample(inner))

    def _join(self: Any, y: Tensor, shortcut: Tensor) -> Tensor:
        return self.drop_path(y) + shortcut

    def _after(self: Any) -> tuple[nn.Module | None, nn.Module]:
        return self.drop_path, NO_ACT


@attended(timm_resnetv2.PreActBasic)
class AttendedPreActBasic(_PreActBlock, timm_resnetv2.PreActBasic):
    """timm's pre-activation basic block: PreActResNet, WRN of the paper."""

    _last = "conv2"

    def _residual(self, x: Tensor) -> Tensor:
        return self.conv2(self.norm2(self.conv1(x)))


@attended(timm_resnetv2.PreActBottleneck)
class AttendedPreActBottleneck(_PreActBlock, timm_resnetv2.PreActBottleneck):
    """timm's pre-activation bottleneck."""

    _last = "conv3"

    def _residual(self, x: Tensor) -> Tensor:
        return self.conv3(self.norm3(self.conv2(self.norm2(self.conv1(x)))))


class _BesideSlot(Attended):
    """A block of a family whose `se` is inside the branch: the layer is called `attn`, and no weights are mixed up."""

    _slot = "attn"

    def _attend(self: Any, x: Tensor) -> Tensor:
        return self.attn(x)


@attended(timm_regnet.Bottleneck)
class AttendedRegNetBottleneck(_BesideSlot, timm_regnet.Bottleneck):
    """timm's RegNetX block. RegNetY has its SE after the 3 x 3 convolution; here attention ends the branch."""

    _first, _last = "conv1.conv", "conv3.conv"

    def _residual(self, x: Tensor) -> Tensor:
        return self.conv3(self.se(self.conv2(self.conv1(x))))

    def _join(self, y: Tensor, shortcut: Tensor) -> Tensor:
        if self.downsample is not None:
            y = self.drop_path(y) + shortcut
        return self.act3(y)

    def _after(self) -> tuple[nn.Module | None, nn.Module]:
        return self.drop_path, self.act3

    @staticmethod
    def _adds(block: Any) -> bool:
        return block.downsample is not None


@attended(torchvision_regnet.ResBottleneckBlock)
class AttendedTorchvisionRegNetBlock(_BesideSlot, torchvision_regnet.ResBottleneckBlock):  # type: ignore[misc]
    """torchvision's RegNetX block."""

    _first, _last = "f.a.0", "f.c.0"

    def _enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, (x if self.proj is None else self.proj(x))

    def _residual(self, x: Tensor) -> Tensor:
        return self.f(x)

    def _join(self, y: Tensor, shortcut: Tensor) -> Tensor:
        return self.activation(shortcut + y)

    def _after(self) -> tuple[nn.Module | None, nn.Module]:
        return None, self.activation

    @staticmethod
    def _present(block: Any) -> nn.Module | None:
        return getattr(block.f, "se", None)


class _MobileBlock(_BesideSlot):
    """The branch ends without activation, and where the shape changes there is no shortcut."""

    def _enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x

    def _join(self: Any, y: Tensor, shortcut: Tensor) -> Tensor:
        if self.has_skip:
            y = self.drop_path(y) + shortcut
        return y

    def _after(self: Any) -> tuple[nn.Module | None, nn.Module]:
        return self.drop_path, NO_ACT

    @staticmethod
    def _adds(block: Any) -> bool:
        return bool(block.has_skip)


@attended(InvertedResidual)
class AttendedInvertedResidual(_MobileBlock, InvertedResidual):
    """timm's MobileNetV2 block. MobileNetV3 has its SE after the depthwise convolution; here it ends the branch."""

    _first, _last = "conv_pw", "conv_pwl"

    def _residual(self: Any, x: Tensor) -> Tensor:
        if self.conv_s2d is not None:
            x = self.bn_s2d(self.conv_s2d(x))
        x = self.bn1(self.conv_pw(x))
        x = self.se(self.aa(self.bn2(self.conv_dw(x))))
        return self.bn3(self.conv_pwl(x))


@attended(DepthwiseSeparableConv)
class AttendedDepthwiseSeparableConv(_MobileBlock, DepthwiseSeparableConv):
    """timm's first block of MobileNetV2."""

    _first, _last = "conv_dw", "conv_pw"

    def _residual(self: Any, x: Tensor) -> Tensor:
        if self.conv_s2d is not None:
            x = self.bn_s2d(self.conv_s2d(x))
        x = self.se(self.aa(self.bn1(self.conv_dw(x))))
        return self.bn2(self.conv_pw(x))


@attended(torchvision_mobilenetv2.InvertedResidual)
class AttendedTorchvisionInvertedResidual(_BesideSlot, torchvision_mobilenetv2.InvertedResidual):  # type: ignore[misc]
    """torchvision's MobileNetV2 block."""

    def _enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x

    def _residual(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def _join(self, y: Tensor, shortcut: Tensor) -> Tensor:
        return shortcut + y if self.use_res_connect else y

    @staticmethod
    def _adds(block: Any) -> bool:
        return bool(block.use_res_connect)

    @classmethod
    def _channels(cls, block: Any) -> Channels:
        return Channels(block.conv[0][0].in_channels, block.out_channels)
