"""Convolution, bias, addition and activation in one call of oneDNN, or step by step in torch where oneDNN cannot.

oneDNN's fused convolution is called by operators of torch that inductor uses, too. They take the weight in a layout
that oneDNN chooses by the shape of the input; `Packed` keeps such weights.
Shapes: B images, C channels, H x W pixels.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.jit import is_tracing
from torch.utils._python_dispatch import _get_current_dispatch_mode

from seattn.core.device import cpu_has_bfloat16
from seattn.ops._kernel import transforms_are_active

_MAX_PACKED = 2  # shapes of the input for which weights are kept: full batches, and the last batch

# Up to this number of multiplications for each thread, calling oneDNN takes longer than the arithmetic: chosen by
# timings of convolutions of one image on an AMD EPYC with AVX-512.
_SMALL = 1_200_000

# The dtypes that oneDNN's fused convolution takes on this CPU.
_BY_ONEDNN: tuple[torch.dtype, ...] = ()
if torch.backends.mkldnn.is_available():
    _BY_ONEDNN = (torch.float32, torch.bfloat16) if cpu_has_bfloat16() else (torch.float32,)


@dataclass(frozen=True)
class Act:
    """An activation: its function in torch, and its name, numbers and algorithm for oneDNN."""

    fn: Any
    attr: str
    scalars: tuple[float, ...] = ()
    algorithm: str = ""


NO_ACT = Act(lambda x: x, "none")
ACTS = {
    "identity": NO_ACT,
    "relu": Act(F.relu, "relu"),
    "relu6": Act(F.relu6, "hardtanh", (0.0, 6.0)),
    "silu": Act(F.silu, "swish"),
    "gelu": Act(F.gelu, "gelu", (), "none"),
    "hard_swish": Act(F.hardswish, "hardswish"),
}


class OneDNNConv:
    """A convolution by oneDNN's fused operator, with the weight in oneDNN's layout for one shape and dtype of x."""

    def __init__(self, conv: nn.Conv2d, weight: Tensor, bias: Tensor, x: Tensor) -> None:
        geometry: Any = conv.padding, conv.stride, conv.dilation, conv.groups
        reordered = torch.ops.mkldnn._reorder_convolution_weight(weight.to(x.dtype), *geometry, list(x.shape))
        self._arguments = reordered, bias.to(x.dtype), *geometry

    def __call__(self, x: Tensor, act: Act, shortcut: Tensor | None = None) -> Tensor:
        """act(conv(x) + shortcut)."""
        name = act.attr, act.scalars, act.algorithm
        if shortcut is None:
            y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, *self._arguments, *name)
        else:
            y = torch.ops.mkldnn._convolution_pointwise.binary(x, shortcut, *self._arguments, "add", 1.0, *name)
        return y


class TorchConv:
    """The same steps in torch, for one small image: the call of oneDNN takes longer than the arithmetic."""

    def __init__(self, conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
        weight = weight.contiguous(memory_format=torch.channels_last)
        self._arguments: Any = weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups

    def __call__(self, x: Tensor, act: Act, shortcut: Tensor | None = None) -> Tensor:
        """act(conv(x) + shortcut)."""
        y = F.conv2d(x, *self._arguments)
        result: Tensor = act.fn(y if shortcut is None else y.add_(shortcut))
        return result


Conv = OneDNNConv | TorchConv


class Packed:
    """Keeps one convolution prepared for the shapes of its last inputs."""

    def __init__(self) -> None:
        self._convs: dict[tuple[torch.dtype, torch.Size], Conv] = {}

    def get(self, conv: nn.Conv2d, weight: Tensor, bias: Tensor, x: Tensor) -> Conv:
        """`conv` with the weight and bias given, for an input of the shape and dtype of x."""
        key = (x.dtype, x.shape)
        if key not in self._convs:
            if len(self._convs) >= _MAX_PACKED:
                self._convs = {}
            small = _is_small(conv, weight, bias, x)
            self._convs[key] = TorchConv(conv, weight, bias) if small else OneDNNConv(conv, weight, bias, x)
        return self._convs[key]

    def clear(self) -> None:
        self._convs = {}


def _is_small(conv: nn.Conv2d, weight: Tensor, bias: Tensor, x: Tensor) -> bool:
    """Whether x is one image so small that `TorchConv` is faster, and torch itself would not call oneDNN for it."""
    stride: Any = conv.stride
    pixels = x[0, 0].numel() // (stride[0] * stride[1])
    if len(x) > 1 or x.dtype != weight.dtype or weight.numel() * pixels > _SMALL * torch.get_num_threads():
        return False
    geometry: Any = conv.stride, conv.padding, conv.dilation, False, (0, 0), conv.groups
    backend: Any = torch._C._select_conv_backend(x, weight, bias, *geometry, None)
    return bool(backend.name == "Slow2d")


def fused_conv(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor, packed: Packed, act: Act, x: Tensor, shortcut: Tensor | None = None
) -> Tensor:
    """act(conv(x) + shortcut) with the weight and bias given, (B, C, H, W); rounds as torch's convolution does.

    Args:
        conv: gives padding, stride, dilation and groups.
        packed: keeps `conv` prepared for the shape of x.
        shortcut: of the shape of the result, or None.
    """
    if _has_onednn(conv, weight, x):
        # oneDNN's operators are unknown to autocast.
        x = x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x
        prepared = packed.get(conv, weight, bias, x)
        if shortcut is None or shortcut.dtype == x.dtype:
            return prepared(x, act, shortcut)
        y = prepared(x, NO_ACT)
    else:
        y = conv._conv_forward(x, weight, bias)
    result: Tensor = act.fn(y if shortcut is None else (y + shortcut).to(y.dtype))
    return result


def _has_onednn(conv: nn.Conv2d, weight: Tensor, x: Tensor) -> bool:
    """Whether oneDNN's fused convolution computes `conv` for x."""
    if (
        is_compiling()
        or is_tracing()
        or transforms_are_active()  # before `onednn_takes`: vmap has no memory format to ask for
        or not onednn_takes(x)
        or not weight.is_cpu
        or not has_zero_padding(conv)
    ):
        return False
    dtype = x.dtype
    if torch.is_autocast_enabled("cpu"):
        return dtype in _BY_ONEDNN and torch.get_autocast_dtype("cpu") in _BY_ONEDNN
    return dtype == weight.dtype and dtype in _BY_ONEDNN


def has_zero_padding(conv: nn.Conv2d) -> bool:
    """Whether the padding is of zeros and given in numbers, as oneDNN's operators need it."""
    return conv.padding_mode == "zeros" and type(conv.padding) is not str


def onednn_takes(x: Tensor) -> bool:
    """Whether oneDNN's operators suit x: a plain map on the CPU, in channels_last, outside of dispatch modes.

    For an NCHW map their result would be in channels_last. Dispatch modes (which count or fake operators) do not know
    them.
    """
    return (
        type(x) is Tensor
        and x.is_cpu
        and x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.numel() > 0
        and bool(_BY_ONEDNN)
        and torch._C._get_mkldnn_enabled()
        and _get_current_dispatch_mode() is None
    )
