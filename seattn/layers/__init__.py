"""Attention layers: parameters, and which op they call. A new layer is one file and its line here."""

from seattn.layers._bottleneck import remap_bottleneck
from seattn.layers._registry import Paper, attn_paper, create_attn, get_attn, is_attn, list_attn, register_attn
from seattn.layers.cbam import Cbam, remap_timm_cbam
from seattn.layers.eca import EfficientChannelAttn, eca_kernel_size
from seattn.layers.se import SqueezeExcite

__all__ = [
    "Cbam",
    "EfficientChannelAttn",
    "Paper",
    "SqueezeExcite",
    "attn_paper",
    "create_attn",
    "eca_kernel_size",
    "get_attn",
    "is_attn",
    "list_attn",
    "register_attn",
    "remap_bottleneck",
    "remap_timm_cbam",
]
