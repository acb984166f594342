"""Pre-activation and wide ResNets for 32 x 32 images, plain and with attention in every residual branch.

He et al., ECCV 2016, https://arxiv.org/abs/1603.05027: `preact_resnet164_cifar` is its table 2's, and
`preact_resnet18_cifar` ResNet-18 of such blocks. Zagoruyko and Komodakis, BMVC 2016, https://arxiv.org/abs/1605.07146:
`wrn16_8_cifar`, `wrn28_10_cifar`. Blocks, head and parameter names are timm.models.resnetv2's.
Shapes: B images, C channels, H x W pixels.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models import PretrainedCfg, generate_default_cfgs
from timm.models._features import feature_take_indices
from timm.models.resnetv2 import PreActBasic, PreActBottleneck, ResNetV2
from torch import nn

from seattn.models._family import cifar_cfgs, create_net, entry_point, variants

__all__ = ["PreActResNetCifar"]  # register_model adds the entry points


class PreActResNetCifar(ResNetV2):
    """timm's ResNetV2 of pre-activation blocks with batch norm, after a 3 x 3 stem of stride 1.

    Args:
        block: "basic" or "bottleneck".
        layers: number of blocks of each stage.
        channels: width of each stage, after a bottleneck.
        stem_chs: width of the stem.
        block_drop_rate: probability of dropout before the last convolution of each block (WRN, section 2.4).
        zero_init_last: start each residual branch at zero.

    The other arguments are those of timm's ResNetV2.

    Shape: (B, in_chans, H, W) -> (B, num_classes).
    """

    def __init__(
        self,
        block: str,
        layers: tuple[int, ...],
        channels: tuple[int, ...],
        *,
        stem_chs: int = 16,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        act_layer: Any = "relu",
        norm_layer: Any = BatchNormAct2d,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        block_drop_rate: float = 0.0,
        zero_init_last: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            list(layers),
            channels,
            num_classes=num_classes,
            in_chans=in_chans,
            global_pool=global_pool,
            stem_chs=stem_chs,
            preact=True,
            basic=block == "basic",
            bottle_ratio=1.0 if block == "basic" else 0.25,
            act_layer=act_layer,
            norm_layer=norm_layer,
            conv_layer=create_conv2d,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            zero_init_last=zero_init_last,
            device=device,
            dtype=dtype,
        )
        conv = nn.Conv2d(in_chans, stem_chs, 3, padding=1, bias=False, device=device, dtype=dtype)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as ResNetV2 does
        self.stem = nn.Sequential()
        self.stem.add_module("conv", conv)
        for level, info in enumerate(self.feature_info):
            info["reduction"] = 1 << max(level - 1, 0)  # ResNetV2 counts from a stem of stride 4
        if block_drop_rate:
            for module in self.modules():
                if isinstance(module, PreActBasic):
                    module.norm2.drop = nn.Dropout(block_drop_rate)  # before or after the ReLU, the result is the same
                elif isinstance(module, PreActBottleneck):
                    module.norm3.drop = nn.Dropout(block_drop_rate)

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """timm's contract: level 0 is the stem, level i the i-th stage; `norm` acts on the last stage's.

        Raises:
            ValueError: if output_fmt is not "NCHW".
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        take, last = feature_take_indices(len(self.feature_info), indices)
        x = self.stem(x)
        levels = [x] if 0 in take else []
        for level, stage in enumerate(self.stages[: last if stop_early else None], start=1):
            x = stage(x)
            if level in take:
                levels.append(self.norm(x) if norm and level == len(self.stages) else x)
        if intermediates_only:
            return levels
        return (x if stop_early and last < len(self.stages) else self.norm(x)), levels

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """timm's contract: drop the stages above the last level that is taken; returns the levels."""
        take, last = feature_take_indices(len(self.feature_info), indices)
        ends_early = last < len(self.stages)
        if prune_norm or ends_early:
            self.norm = nn.Identity()
        self.stages = self.stages[:last]
        if ends_early:
            channels: Any = self.feature_info[last]["num_chs"]
            self.num_features = self.head_hidden_size = channels
        if prune_head or ends_early:
            self.reset_classifier(0, "")
        return list(take)


@dataclass(frozen=True)
class _Net:
    block: str
    layers: tuple[int, ...]
    channels: tuple[int, ...]
    stem_chs: int = 16


# A new net is one row: it gets a plain entry point and one for each attention layer.
_NETS = {
    "preact_resnet18_cifar": _Net("basic", (2, 2, 2, 2), (64, 128, 256, 512), stem_chs=64),
    "preact_resnet164_cifar": _Net("bottleneck", (18, 18, 18), (64, 128, 256)),
    "wrn16_8_cifar": _Net("basic", (2, 2, 2), (128, 256, 512)),
    "wrn28_10_cifar": _Net("basic", (4, 4, 4), (160, 320, 640)),
}

default_cfgs: dict[str, PretrainedCfg] = generate_default_cfgs(
    {
        name: cfg
        for variant, row, _ in variants(_NETS)
        for name, cfg in cifar_cfgs(
            variant, side=32 >> (len(row.layers) - 1), first_conv="stem.conv", classifier="head.fc"
        ).items()
    }
)


def _create(variant: str, row: _Net, attn_layer: str | None, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return create_net(
        PreActResNetCifar,
        variant,
        attn_layer,
        pretrained,
        **asdict(row),
        feature_cfg={"out_indices": tuple(range(len(row.layers) + 1)), "flatten_sequential": True},
        **kwargs,
    )


for _variant, _row, _layer in variants(_NETS):
    _doc = f"{_variant}: {_layer or 'no'} attention, {sum(_row.layers)} pre-activation {_row.block} blocks."
    globals()[_variant] = entry_point(__name__, _variant, _doc, partial(_create, _variant, _row, _layer))
