"""MobileNetV2 for 32 x 32 images, plain and with attention in every inverted residual.

Sandler et al., CVPR 2018, https://arxiv.org/abs/1801.04381, table 2, with the strides of the stem and of the second
stage taken out, so that the last map is 4 x 4. Blocks, head and parameter names are timm.models.efficientnet's.
"""

from functools import partial
from typing import Any

import torch
from timm.layers import get_act_layer, get_norm_layer
from timm.models import PretrainedCfg, generate_default_cfgs
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.efficientnet import EfficientNet
from torch import nn

from seattn.models._family import cifar_cfgs, create_net, entry_point, variants

__all__ = ["MobileNetV2Cifar"]  # register_model adds the entry points

_STAGES = [
    ["ds_r1_k3_s1_c16"],
    ["ir_r2_k3_s1_e6_c24"],
    ["ir_r3_k3_s2_e6_c32"],
    ["ir_r4_k3_s2_e6_c64"],
    ["ir_r3_k3_s1_e6_c96"],
    ["ir_r3_k3_s2_e6_c160"],
    ["ir_r1_k3_s1_e6_c320"],
]


class MobileNetV2Cifar(EfficientNet):
    """timm's EfficientNet with MobileNetV2's stages and a stem of stride 1.

    Args:
        channel_multiplier: on all widths; the head has 1280 channels at least.

    The other arguments are those of timm's EfficientNet, with layers by their names.

    Shape: (B, in_chans, H, W) -> (B, num_classes).
    """

    def __init__(
        self,
        *,
        channel_multiplier: float = 1.0,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        act_layer: str = "relu6",
        norm_layer: str = "batchnorm2d",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        round_chs = partial(round_channels, multiplier=channel_multiplier)
        super().__init__(
            decode_arch_def(_STAGES),
            num_classes=num_classes,
            num_features=max(1280, round_chs(1280)),
            in_chans=in_chans,
            act_layer=get_act_layer(act_layer),
            norm_layer=get_norm_layer(norm_layer),
            round_chs_fn=round_chs,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            global_pool=global_pool,
            device=device,
            dtype=dtype,
        )
        self.conv_stem.stride = (1, 1)
        for info in self.feature_info:
            info["reduction"] //= 2  # the builder counts from a stem of stride 2


# A new net is one row, its channel_multiplier: it gets a plain entry point and one for each attention layer.
_NETS = {"mobilenetv2_cifar": 1.0}

default_cfgs: dict[str, PretrainedCfg] = generate_default_cfgs(
    {
        name: cfg
        for variant, _, _ in variants(_NETS)
        for name, cfg in cifar_cfgs(variant, side=4, first_conv="conv_stem", classifier="classifier").items()
    }
)


def _create(variant: str, width: float, attn_layer: str | None, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return create_net(
        MobileNetV2Cifar,
        variant,
        attn_layer,
        pretrained,
        channel_multiplier=width,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **kwargs,
    )


for _variant, _row, _layer in variants(_NETS):
    _doc = f"{_variant}: {_layer or 'no'} attention, 17 inverted residuals."
    globals()[_variant] = entry_point(__name__, _variant, _doc, partial(_create, _variant, _row, _layer))
