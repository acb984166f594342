"""The whole tail of a residual block with squeeze-excite: batch norm, gate, addition, activation.

Ioffe and Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167, and Hu et al., CVPR 2018,
https://arxiv.org/abs/1709.01507. Shapes: B images, C channels, H x W pixels, R hidden channels.
"""

from torch import Tensor

from seattn.ops._tail.excitation import Excitation
from seattn.ops._tail.norm import BatchNorm
from seattn.ops._tail.run import fx_leaf, reference, run


@fx_leaf
def batch_norm_squeeze_excite_add_act(
    x: Tensor,
    shortcut: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    act: str = "relu",
    gate: str = "sigmoid",
    out_act: str = "relu",
) -> Tensor:
    """y = out_act(squeeze_excite(batch_norm(x)) + shortcut): the squeeze comes out of the norm's own statistics.

    Args:
        x: (B, C, H, W), floating point: what the last convolution of the branch gives.
        shortcut: (B, C, H, W), taken in the dtype of x, or None.
        running_mean, running_var, weight, bias, training, momentum, eps: as in `torch.nn.functional.batch_norm`; the
            running statistics are updated in place where training is True.
        w1, b1, w2, b2, act, gate: as in `squeeze_excite`.
        out_act: relu or identity.

    Returns:
        (B, C, H, W) with the dtype and memory format of x.

    Raises:
        ValueError: for shapes that do not fit, mixed devices, a dtype that is not floating point, an unknown name, a
            momentum outside 0..1, or one value a channel where training is True.
        RuntimeError: if the kernels are set to "triton" or "torch" and that one cannot run.
    """
    norm = BatchNorm(running_mean, running_var, weight, bias, training, momentum, eps)
    return run(x, shortcut, Excitation("se", w1, b1, w2, b2, act, gate), norm, out_act)


def batch_norm_squeeze_excite_add_act_reference(
    x: Tensor,
    shortcut: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    act: str = "relu",
    gate: str = "sigmoid",
    out_act: str = "relu",
) -> Tensor:
    """The definition, in fp32 with one rounding. Arguments as in `batch_norm_squeeze_excite_add_act`."""
    norm = BatchNorm(running_mean, running_var, weight, bias, training, momentum, eps)
    return reference(x, shortcut, Excitation("se", w1, b1, w2, b2, act, gate), norm, out_act)
