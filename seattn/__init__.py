"""A plugin for timm: importing it registers attention layers, CIFAR ResNets and their weights."""

from importlib.metadata import version

from seattn import layers, models, ops
from seattn.accelerate import accelerate, restore
from seattn.ops import get_kernels, set_kernels

__version__ = version("seattn")
__all__ = ["__version__", "accelerate", "get_kernels", "layers", "models", "ops", "restore", "set_kernels"]
