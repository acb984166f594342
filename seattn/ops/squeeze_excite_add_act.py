"""Squeeze-excite at the end of a residual branch, with the addition and the activation that follow it.

Hu et al., CVPR 2018, https://arxiv.org/abs/1709.01507, figure 3. Shapes: B images, C channels, H x W pixels, R hidden
channels.
"""

from torch import Tensor

from seattn.ops._tail.excitation import Excitation
from seattn.ops._tail.run import fx_leaf, reference, run


@fx_leaf
def squeeze_excite_add_act(
    x: Tensor,
    shortcut: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    act: str = "relu",
    gate: str = "sigmoid",
    out_act: str = "relu",
) -> Tensor:
    """y = out_act(squeeze_excite(x) + shortcut).

    Args:
        x, shortcut: (B, C, H, W) each, floating point; the shortcut is taken in the dtype of x, as `x += shortcut` is.
        w1, b1, w2, b2, act, gate: as in `squeeze_excite`.
        out_act: relu or identity.

    Returns:
        (B, C, H, W) with the dtype and memory format of x.

    Raises:
        ValueError: for shapes that do not fit, mixed devices, a dtype that is not floating point, or an unknown name.
        RuntimeError: if the kernels are set to "triton" or "torch" and that one cannot run.
    """
    return run(x, shortcut, Excitation("se", w1, b1, w2, b2, act, gate), None, out_act)


def squeeze_excite_add_act_reference(
    x: Tensor,
    shortcut: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    act: str = "relu",
    gate: str = "sigmoid",
    out_act: str = "relu",
) -> Tensor:
    """The definition, in fp32 with one rounding. Arguments as in `squeeze_excite_add_act`."""
    return reference(x, shortcut, Excitation("se", w1, b1, w2, b2, act, gate), None, out_act)
