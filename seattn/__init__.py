"""A plugin for timm: importing it registers attention layers, CIFAR ResNets and their weights.

The nets are in timm's registry as soon as timm is imported, before or after this package.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from seattn.core.lazy import lazily
from seattn.registration import register

if TYPE_CHECKING:
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

__getattr__ = lazily(
    __name__,
    {
        "accelerate": "blocks",
        "acceleration_report": "blocks",
        "add_attention": "blocks",
        "get_kernels": "ops",
        "remove_attention": "blocks",
        "restore": "blocks",
        "set_kernels": "ops",
    },
    modules=("layers", "models", "ops"),
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()
