"""Post-activation ResNets and ResNeXts for 32 x 32 images, plain and with attention in every residual branch.

He et al., CVPR 2016, https://arxiv.org/abs/1512.03385. `resnet20/32/44/56/110_cifar` are section 4.2's nets (three
stages of 16-32-64 channels; shortcuts are projections, option B); `resnet18/34/50_cifar` are the ImageNet nets with a
3 x 3 stem of stride 1 and without the max-pool; `resnext29_8x64d_cifar` is that of Xie et al., CVPR 2017,
https://arxiv.org/abs/1611.05431. Four more are for a study of stems at 32 x 32: ResNet-18 with ImageNet's stem
(`stem7`) or with three 3 x 3 convolutions of stride 1 (`deep`), and both stride-1 stems without the last stage
(`resnet14`).
Blocks, head and parameter names are timm.models.resnet's. Shapes: B images, C channels, H x W pixels.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from timm.layers import create_classifier, get_act_layer, get_norm_layer
from timm.models import PretrainedCfg, checkpoint_seq, generate_default_cfgs
from timm.models._features import feature_take_indices
from timm.models.resnet import ResNet, make_blocks
from torch import nn

from seattn.blocks.fused.residual import FusedBasicBlock, FusedBottleneck
from seattn.models._family import cifar_cfgs, create_net, entry_point, variants

__all__ = ["ResNetCifar", "ThreeStageResNetCifar"]  # register_model adds the entry points

_BLOCKS = {"basic": FusedBasicBlock, "bottleneck": FusedBottleneck}
_STEM_STRIDES = {"conv3": 1, "deep": 1, "conv7": 4}  # the stride of the first stage's input


class ResNetCifar(ResNet):  # type: ignore[misc]  # timm's classes are untyped
    """timm's ResNet with a stem for small images.

    Args:
        block: "basic" or "bottleneck".
        layers: number of blocks of each stage.
        channels: width of each stage, before a bottleneck's factor of 4; the stem has the first.
        stem: "conv3" (3 x 3), "deep" (three 3 x 3), both of stride 1 without max-pool, or "conv7" (ImageNet's: 7 x 7
            of stride 2, then a max-pool).
        cardinality, base_width: groups of a bottleneck's 3 x 3 convolution and the width of each at 64 channels.
        zero_init_last: start each residual branch at zero.

    The other arguments are those of timm's ResNet, with layers by their names.

    Shape: (B, in_chans, H, W) -> (B, num_classes).

    Raises:
        ValueError: if the stem is unknown.
    """

    stages: tuple[str, ...] = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        block: str,
        layers: tuple[int, ...],
        channels: tuple[int, ...],
        *,
        stem: str = "conv3",
        cardinality: int = 1,
        base_width: int = 64,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        act_layer: str = "relu",
        norm_layer: str = "batchnorm2d",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        drop_block_rate: float = 0.0,
        zero_init_last: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if stem not in _STEM_STRIDES:
            raise ValueError(f"stem must be one of {', '.join(_STEM_STRIDES)}; got {stem!r}")
        nn.Module.__init__(self)  # ResNet's own fixes a stem of 64 channels and stride 4; all else is inherited
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        act, norm = get_act_layer(act_layer), get_norm_layer(norm_layer)
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False

        width = channels[0]
        self.conv1: nn.Module
        if stem == "deep":
            half = width // 2
            self.conv1 = nn.Sequential(
                nn.Conv2d(in_chans, half, 3, padding=1, bias=False, **dd),
                norm(half, **dd),
                act(inplace=True),
                nn.Conv2d(half, half, 3, padding=1, bias=False, **dd),
                norm(half, **dd),
                act(inplace=True),
                nn.Conv2d(half, width, 3, padding=1, bias=False, **dd),
            )
        elif stem == "conv7":
            self.conv1 = nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False, **dd)
        else:
            self.conv1 = nn.Conv2d(in_chans, width, 3, padding=1, bias=False, **dd)
        self.bn1 = norm(width, **dd)
        self.act1 = act(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "conv7" else nn.Identity()

        stages, self.feature_info = make_blocks(
            (_BLOCKS[block],) * len(channels),
            channels,
            layers,
            width,
            cardinality=cardinality,
            base_width=base_width,
            act_layer=act,
            norm_layer=norm,
            drop_block_rate=drop_block_rate,
            drop_path_rate=drop_path_rate,
            **dd,
        )
        for name, stage in stages:
            self.add_module(name, stage)
        for info in self.feature_info:
            info["reduction"] = info["reduction"] * _STEM_STRIDES[stem] // 4  # make_blocks counts from a stride of 4
        stem_stride = 2 if stem == "conv7" else 1  # before the max-pool
        self.feature_info.insert(0, {"num_chs": width, "reduction": stem_stride, "module": "act1"})

        self.num_features = self.feature_info[-1]["num_chs"]
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool, **dd)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.init_weights(zero_init_last=zero_init_last)

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """timm's contract: level 0 is the stem, level i the i-th stage; `norm` has nothing to act on in a ResNet.

        Raises:
            ValueError: if output_fmt is not "NCHW".
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        take, last = feature_take_indices(len(self.feature_info), indices)
        x = self.act1(self.bn1(self.conv1(x)))
        levels = [x] if 0 in take else []
        x = self.maxpool(x)
        for level, name in enumerate(self.stages[: last if stop_early else None], start=1):
            stage = getattr(self, name)
            x = checkpoint_seq(stage, x) if self.grad_checkpointing else stage(x)
            if level in take:
                levels.append(x)
        return levels if intermediates_only else (x, levels)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """timm's contract: empty the stages above the last level that is taken; returns the levels."""
        take, last = feature_take_indices(len(self.feature_info), indices)
        for name in self.stages[last:]:
            setattr(self, name, nn.Sequential())  # checkpoint_seq can iterate it
        if last == 0:
            self.maxpool = nn.Identity()  # level 0 is the input of the max-pool
        ends_early = last < len(self.stages)
        if ends_early:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_head or ends_early:
            self.reset_classifier(0, "")
        return list(take)


class ThreeStageResNetCifar(ResNetCifar):
    """`ResNetCifar` with three stages, so four levels of features."""

    stages = ("layer1", "layer2", "layer3")

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))  # (B, C, H, W)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            x = checkpoint_seq([self.layer1, self.layer2, self.layer3], x, flatten=True)
        else:
            x = self.layer1(x)  # (B, C, H, W)
            x = self.layer2(x)  # (B, 2C, H/2, W/2)
            x = self.layer3(x)  # (B, 4C, H/4, W/4)
        return x


@dataclass(frozen=True)
class _Net:
    block: str
    layers: tuple[int, ...]
    channels: tuple[int, ...] = (64, 128, 256, 512)
    stem: str = "conv3"
    cardinality: int = 1
    base_width: int = 64

    @property
    def side(self) -> int:
        """Height and width in pixels of the last feature map of a 32 x 32 image."""
        return 32 // _STEM_STRIDES[self.stem] >> (len(self.layers) - 1)

    @property
    def first_conv(self) -> str:
        return "conv1.0" if self.stem == "deep" else "conv1"


# A new net is one row: it gets a plain entry point and one for each attention layer.
_NETS = {
    "resnet20_cifar": _Net("basic", (3, 3, 3), (16, 32, 64)),
    "resnet32_cifar": _Net("basic", (5, 5, 5), (16, 32, 64)),
    "resnet44_cifar": _Net("basic", (7, 7, 7), (16, 32, 64)),
    "resnet56_cifar": _Net("basic", (9, 9, 9), (16, 32, 64)),
    "resnet110_cifar": _Net("basic", (18, 18, 18), (16, 32, 64)),
    "resnet18_cifar": _Net("basic", (2, 2, 2, 2)),
    "resnet34_cifar": _Net("basic", (3, 4, 6, 3)),
    "resnet50_cifar": _Net("bottleneck", (3, 4, 6, 3)),
    "resnet18_stem7_cifar": _Net("basic", (2, 2, 2, 2), stem="conv7"),
    "resnet18_deep_cifar": _Net("basic", (2, 2, 2, 2), stem="deep"),
    "resnet14_deep_cifar": _Net("basic", (2, 2, 2), (64, 128, 256), stem="deep"),
    "resnet14_cifar": _Net("basic", (2, 2, 2), (64, 128, 256)),
    "resnext29_8x64d_cifar": _Net("bottleneck", (3, 3, 3), (64, 128, 256), cardinality=8),
}


default_cfgs: dict[str, PretrainedCfg] = generate_default_cfgs(
    {
        name: cfg
        for variant, row, _ in variants(_NETS)
        for name, cfg in cifar_cfgs(variant, side=row.side, first_conv=row.first_conv, classifier="fc").items()
    }
)


def _create(variant: str, row: _Net, attn_layer: str | None, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return create_net(
        ThreeStageResNetCifar if len(row.layers) == 3 else ResNetCifar,
        variant,
        attn_layer,
        pretrained,
        **asdict(row),
        feature_cfg={"out_indices": tuple(range(len(row.layers) + 1))},
        **kwargs,
    )


for _variant, _row, _layer in variants(_NETS):
    _doc = f"{_variant}: {_layer or 'no'} attention, {sum(_row.layers)} {_row.block} blocks."
    globals()[_variant] = entry_point(__name__, _variant, _doc, partial(_create, _variant, _row, _layer))
