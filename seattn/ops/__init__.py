"""Ops: contract, reference and choice of implementation, one op a file."""

import seattn.ops._squeeze_excite_op  # noqa: F401  registers torch.ops.seattn.squeeze_excite_*
from seattn.ops._kernel import get_kernels, set_kernels
from seattn.ops.squeeze_excite import squeeze_excite, squeeze_excite_gate_reference, squeeze_excite_reference

__all__ = [
    "get_kernels",
    "set_kernels",
    "squeeze_excite",
    "squeeze_excite_gate_reference",
    "squeeze_excite_reference",
]
