"""A plugin for timm: importing it registers attention layers, CIFAR ResNets and their weights."""

from importlib.metadata import version

from seattn import layers, models, ops
from seattn.blocks import accelerate, acceleration_report, add_attention, remove_attention, restore
from seattn.ops import get_kernels, set_kernels

__version__ = version("seattn")
__all__ = [
    "__version__",
    "accelerate",
    "acceleration_report",
    "add_attention",
    "get_kernels",
    "layers",
    "models",
    "ops",
    "remove_attention",
    "restore",
    "set_kernels",
]
