"""The width of a bottleneck, and the names that its two matrices have in other code."""

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import make_divisible
from torch import nn

# Names of the two matrices in other projects. moskomule/senet.pytorch: an nn.Sequential of Linears; timm's
# EfficientNets and MobileNetV3: conv_reduce, conv_expand. timm's SEModule, torchvision's SqueezeExcitation and
# Cadene's SENets have our names.
SPELLINGS = (("fc.0", "fc.2"), ("conv_reduce", "conv_expand"))


def bottleneck_width(channels: int, rd_ratio: float, rd_channels: int | None, rd_divisor: int) -> int:
    """Hidden channels R: `rd_channels` as given, else `channels * rd_ratio` rounded to a multiple of `rd_divisor`.

    The result is at least `rd_divisor`. `rd_divisor=1` gives the papers' exact C/r; timm's SEModule uses 8.

    Raises:
        ValueError: if a number is out of range.
    """
    if channels < 1:
        raise ValueError(f"channels must be at least 1, got {channels}")
    if rd_channels is not None:
        if rd_channels < 1:
            raise ValueError(f"rd_channels must be at least 1, got {rd_channels}")
        return rd_channels
    if rd_ratio <= 0:
        raise ValueError(f"rd_ratio must be above 0 (1/16 keeps a sixteenth of the channels), got {rd_ratio}")
    if rd_divisor < 1:
        raise ValueError(f"rd_divisor must be at least 1 (1: exact C/r), got {rd_divisor}")
    return int(make_divisible(channels * rd_ratio, rd_divisor, round_limit=0.0))


def remap_bottleneck(state: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """A copy of `state` in which the bottleneck under `prefix` has the names of timm's SEModule.

    The other `SPELLINGS` become `fc1`/`fc2`; a Linear's weight (R, C) becomes a 1 x 1 convolution's (R, C, 1, 1). A
    state that already has these names comes back unchanged.
    """
    result: dict[str, Any] = dict(state)
    for spelling in SPELLINGS:
        for layer, other in zip(("fc1", "fc2"), spelling, strict=True):
            for name in ("weight", "bias"):
                if f"{prefix}{other}.{name}" in result:
                    result[f"{prefix}{layer}.{name}"] = result.pop(f"{prefix}{other}.{name}")
    for layer in ("fc1", "fc2"):
        weight = result.get(f"{prefix}{layer}.weight")
        if weight is not None and weight.ndim == 2:
            result[f"{prefix}{layer}.weight"] = weight[:, :, None, None]  # (out, in) -> (out, in, 1, 1)
    return result


class Bottleneck(nn.Module):
    """The matrices C -> R -> C of a channel gate, as 1 x 1 convolutions; states with other `SPELLINGS` load, too."""

    def __init__(
        self, channels: int, width: int, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, width, 1, bias=bias, device=device, dtype=dtype)
        self.fc2 = nn.Conv2d(width, channels, 1, bias=bias, device=device, dtype=dtype)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        remapped = remap_bottleneck(state_dict, prefix)
        state_dict.clear()
        state_dict.update(remapped)
        given = [f"{prefix}{layer}.bias" in state_dict for layer in ("fc1", "fc2")]
        needs = self.fc1.bias is not None
        if f"{prefix}fc1.weight" in state_dict and given == [not needs] * 2:
            # torch shows these lists in the error of a strict load, and returns them from any other.
            wrong_keys = missing_keys if needs else unexpected_keys
            where = f"the state of {prefix[:-1]}" if prefix else "this state"
            wrong_keys.append(f"{where} has {'no ' if needs else ''}biases: build the layer with bias={not needs}")
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
