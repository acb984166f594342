"""Effective squeeze-excite: one matrix in place of two.

Lee and Park, CenterMask, CVPR 2020, https://arxiv.org/abs/1911.06667, eq. 4. Shapes: B images, C channels,
H x W pixels.
"""

from torch import Tensor

from seattn.ops._tail.excitation import Excitation
from seattn.ops._tail.run import fx_leaf, reference, run


@fx_leaf
def effective_squeeze_excite(x: Tensor, weight: Tensor, bias: Tensor | None, *, gate: str = "hard_sigmoid") -> Tensor:
    """y = x * gate(W mean_hw(x) + b).

    Args:
        x: (B, C, H, W), floating point; NCHW and channels_last without a copy.
        weight, bias: (C, C) and (C) or None.
        gate: sigmoid, two_sigmoid or hard_sigmoid.

    Returns:
        (B, C, H, W) with the dtype and memory format of x.

    Raises:
        ValueError: for shapes that do not fit, mixed devices, a dtype that is not floating point, or an unknown name.
        RuntimeError: if the kernels are set to "triton" or "torch" and that one cannot run.
    """
    return run(x, None, Excitation("ese", weight, bias, gate=gate), None, "identity")


def effective_squeeze_excite_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, gate: str = "hard_sigmoid"
) -> Tensor:
    """The definition, in fp32 with one rounding. Arguments as in `effective_squeeze_excite`."""
    return reference(x, None, Excitation("ese", weight, bias, gate=gate), None, "identity")
