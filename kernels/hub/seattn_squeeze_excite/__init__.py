"""Squeeze-excite, forward and backward: Triton kernels on a GPU, hand-written PyTorch elsewhere.

y = x * gate(W2 act(W1 mean_hw(x) + b1) + b2); Hu et al., CVPR 2018, https://arxiv.org/abs/1709.01507.
`set_kernels` chooses, and says which implementation may run: "auto", "triton", "torch" or "reference".
"""

# mypy: disable-error-code="import-not-found"
# (ops/ is put beside this file by kernels/hub/stage.py)

from . import layers
from .ops._kernel import get_kernels, set_kernels
from .ops.se import squeeze_excite, squeeze_excite_reference

__all__ = ["get_kernels", "layers", "set_kernels", "squeeze_excite", "squeeze_excite_reference"]
