"""timm's ResNets for 224 x 224 images with SE, ECA or CBAM in every residual branch.

The trunk is timm.models.resnet's, so timm's plain weights load into it (`strict=False`: only attention is missing).
The plain nets are timm's own: `resnet18` and so on. timm has some of these under other names and with a hidden width
that is a multiple of 8 (`seresnet50`); here it is the paper's exact C/16.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import PretrainedCfg, generate_default_cfgs
from timm.models.resnet import ResNet
from torch import nn

from seattn.blocks.fused.residual import FusedBasicBlock, FusedBottleneck
from seattn.models._datasets import BUTTERFLIES, DATASETS
from seattn.models._family import create_net, entry_point, variants
from seattn.models._pretrained import weight_source

__all__: list[str] = []  # register_model adds the entry points

_BLOCKS = {"basic": FusedBasicBlock, "bottleneck": FusedBottleneck}


@dataclass(frozen=True)
class _Net:
    block: str
    layers: tuple[int, ...]
    cardinality: int = 1
    base_width: int = 64


# A new net is one row: it gets an entry point for each attention layer.
_NETS = {
    "resnet18": _Net("basic", (2, 2, 2, 2)),
    "resnet34": _Net("basic", (3, 4, 6, 3)),
    "resnet50": _Net("bottleneck", (3, 4, 6, 3)),
    "resnet101": _Net("bottleneck", (3, 4, 23, 3)),
    "resnext50_32x4d": _Net("bottleneck", (3, 4, 6, 3), cardinality=32, base_width=4),
}


def _cfgs(variant: str) -> dict[str, dict[str, Any]]:
    """The butterflies' cfgs, then the cfg of 1,000 classes without a tag, which timm's star makes the default."""
    cfg: dict[str, Any] = {
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "num_classes": 1000,
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
    }
    cfgs = {}
    for tag in BUTTERFLIES:
        data = DATASETS[tag]
        cfgs[f"{variant}.{tag}"] = {
            **cfg,
            "input_size": (3, 160, 160),
            "pool_size": (5, 5),
            "crop_pct": 1.0,
            "num_classes": len(data.label_names),
            "label_names": data.label_names,
            **weight_source(f"{variant}.{tag}"),
        }
    return {**cfgs, f"{variant}.*": {**cfg, **weight_source(variant)}}


default_cfgs: dict[str, PretrainedCfg] = generate_default_cfgs(
    {name: cfg for variant, _, _ in variants(_NETS, plain=False) for name, cfg in _cfgs(variant).items()}
)


def _create(variant: str, row: _Net, attn_layer: str | None, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return create_net(
        ResNet,
        variant,
        attn_layer,
        pretrained,
        block=_BLOCKS[row.block],
        layers=row.layers,
        cardinality=row.cardinality,
        base_width=row.base_width,
        **kwargs,
    )


for _variant, _row, _layer in variants(_NETS, plain=False):
    _doc = f"{_variant}: {_layer} attention, {sum(_row.layers)} {_row.block} blocks."
    globals()[_variant] = entry_point(__name__, _variant, _doc, partial(_create, _variant, _row, _layer))
