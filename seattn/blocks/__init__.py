"""Residual blocks of timm and torchvision: their tail as one op, and attention that is added to them or removed."""

from seattn.blocks.acceleration import accelerate, acceleration_report, restore
from seattn.blocks.attended import residual as _attended_residual  # noqa: F401  # registers its classes
from seattn.blocks.fused import layers as _fused_layers  # noqa: F401  # registers its classes
from seattn.blocks.fused import residual as _fused_residual  # noqa: F401  # registers its classes
from seattn.blocks.surgery import add_attention, remove_attention

__all__ = ["accelerate", "acceleration_report", "add_attention", "remove_attention", "restore"]
