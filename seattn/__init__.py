"""A plugin for timm: importing it registers attention layers, CIFAR ResNets and their weights."""

from importlib.metadata import version

from seattn import layers, models, ops
from seattn.accelerate import accelerate, restore
from seattn.add_attention import add_attention, remove_attention
from seattn.layers import (  # noqa: F401  # each registers its classes
    _attended_blocks,
    _fused_attn,
    _fused_blocks,
    _fused_cbam,
)
from seattn.ops import get_kernels, set_kernels

__version__ = version("seattn")
__all__ = [
    "__version__",
    "accelerate",
    "add_attention",
    "get_kernels",
    "layers",
    "models",
    "ops",
    "remove_attention",
    "restore",
    "set_kernels",
]
