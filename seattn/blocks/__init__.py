"""Residual blocks of timm and torchvision: their tail in one op, attention put in and taken out."""

import seattn.blocks.attended.residual
import seattn.blocks.fused.layers
import seattn.blocks.fused.residual
import seattn.layers._fused_cbam  # noqa: F401  # each registers its classes
from seattn.blocks.acceleration import accelerate, restore
from seattn.blocks.surgery import add_attention, remove_attention

__all__ = ["accelerate", "add_attention", "remove_attention", "restore"]
