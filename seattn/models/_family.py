"""Shared by all families of nets: names with attention, the options that every net takes, cfgs, entry points."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from timm.models import register_model
from torch import nn

from seattn.blocks.attended.insert import Attention, insert_attention
from seattn.blocks.narrowing import Widths, narrow
from seattn.layers import list_attn
from seattn.models._datasets import CIFAR, DATASETS
from seattn.models._pretrained import build, weight_source

Row = TypeVar("Row")


def variants(nets: Mapping[str, Row], *, plain: bool = True) -> Iterator[tuple[str, Row, str | None]]:
    """(name, row, attention layer) of every net of a family: the plain ones, and one for each attention layer."""
    for net, row in nets.items():
        if plain:
            yield net, row, None
        for layer in list_attn():
            yield f"{layer}_{net}", row, layer


def split_attn(name: str) -> tuple[str | None, str]:
    """The attention layer and the plain net of a name: ("se", "resnet18_cifar"), (None, "resnet18_cifar")."""
    for layer in list_attn():
        if name.startswith(f"{layer}_"):
            return layer, name.removeprefix(f"{layer}_")
    return None, name


def entry_point(module: str, variant: str, doc: str, create: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Register `create(pretrained, **kwargs)` with timm as `variant` of `module`; the module keeps the result."""
    create.__name__, create.__module__, create.__doc__ = variant, module, doc
    return register_model(create)


def create_net(
    make: Callable[..., nn.Module], variant: str, attn_layer: str | None, pretrained: bool, **kwargs: Any
) -> nn.Module:
    """timm's `build_model_with_cfg` on `make(**kwargs)` with attention put into its residual branches.

    The options of every net with attention, all plain values that a config.json holds:
        rd_ratio: hidden over input channels, one number or one a stage (SE, CBAM).
        rd_divisor: the hidden width is a multiple of this number (SE, CBAM).
        attn_stages: numbers of the stages with attention, from 1; None for all.
        attn_placement: "standard", "pre", "post" or "identity" (SENet, section 6.5).
        gate: "sigmoid", "two_sigmoid" or "hard_sigmoid".

    The option of every net:
        widths: the sizes of layers of a pruned net, as `seattn prune` writes them (`seattn.blocks.narrowing`).

    Raises:
        ValueError: for a wrong value, or an option of attention for a net that has none.
        TypeError: for an unknown keyword, or an option that the attention layer does not take.
    """
    return build(partial(_construct, make, variant, attn_layer), variant, pretrained, **kwargs)


def _construct(
    make: Callable[..., nn.Module],
    variant: str,
    attn_layer: str | None,
    *,
    rd_ratio: float | Sequence[float] | None = None,
    rd_divisor: int | None = None,
    attn_stages: Sequence[int] | None = None,
    attn_placement: str | None = None,
    gate: str | None = None,
    widths: Widths | None = None,
    **kwargs: Any,
) -> nn.Module:
    model = make(**kwargs)
    if attn_layer is None:
        given = {
            "rd_ratio": rd_ratio,
            "rd_divisor": rd_divisor,
            "attn_stages": attn_stages,
            "attn_placement": attn_placement,
            "gate": gate,
        }
        unused = [name for name, value in given.items() if value is not None]
        if unused:
            raise ValueError(f"{variant} has no attention for {', '.join(unused)} to act on; se_{variant} has")
    else:
        options = {"rd_divisor": rd_divisor, "gate": gate}
        placement = "standard" if attn_placement is None else attn_placement
        insert_attention(model, Attention(attn_layer, placement, attn_stages, rd_ratio, options))
    if widths is not None:
        narrow(model, widths)
    return model


def cifar_cfgs(variant: str, *, side: int, first_conv: str, classifier: str) -> dict[str, dict[str, Any]]:
    """A net's cfgs by `arch.tag`, one for each CIFAR set; `side`: pixels of the last feature map of a 32 x 32 image."""
    return {
        f"{variant}.{tag}": {
            "input_size": (3, 32, 32),
            "pool_size": (side, side),
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": data.mean,
            "std": data.std,
            "num_classes": len(data.label_names),
            "label_names": data.label_names,
            "first_conv": first_conv,
            "classifier": classifier,
            "license": "apache-2.0",
            **weight_source(f"{variant}.{tag}"),
        }
        for tag, data in ((tag, DATASETS[tag]) for tag in CIFAR)
    }
