"""Ops: contract, reference and choice of implementation, one op a file."""

from seattn.ops._kernel import get_kernels, set_kernels
from seattn.ops.cbam import (
    cbam_channel_gate,
    cbam_channel_gate_reference,
    cbam_spatial_gate,
    cbam_spatial_gate_reference,
)
from seattn.ops.eca import (
    batch_norm_efficient_channel_attn_add_act,
    efficient_channel_attn,
    efficient_channel_attn_add_act,
    efficient_channel_attn_reference,
)
from seattn.ops.gate import channel_gate, channel_gate_reference
from seattn.ops.norm_act import batch_norm_add_act, batch_norm_add_act_reference
from seattn.ops.se import (
    batch_norm_squeeze_excite_add_act,
    batch_norm_squeeze_excite_add_act_reference,
    effective_squeeze_excite,
    effective_squeeze_excite_reference,
    squeeze_excite,
    squeeze_excite_add_act,
    squeeze_excite_add_act_reference,
    squeeze_excite_gate_reference,
    squeeze_excite_reference,
)

__all__ = [
    "batch_norm_add_act",
    "batch_norm_add_act_reference",
    "batch_norm_efficient_channel_attn_add_act",
    "batch_norm_squeeze_excite_add_act",
    "batch_norm_squeeze_excite_add_act_reference",
    "cbam_channel_gate",
    "cbam_channel_gate_reference",
    "cbam_spatial_gate",
    "cbam_spatial_gate_reference",
    "channel_gate",
    "channel_gate_reference",
    "effective_squeeze_excite",
    "effective_squeeze_excite_reference",
    "efficient_channel_attn",
    "efficient_channel_attn_add_act",
    "efficient_channel_attn_reference",
    "get_kernels",
    "set_kernels",
    "squeeze_excite",
    "squeeze_excite_add_act",
    "squeeze_excite_add_act_reference",
    "squeeze_excite_gate_reference",
    "squeeze_excite_reference",
]
