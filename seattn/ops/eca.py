"""Efficient channel attention: a gate for every channel from the means of its neighbours; alone and as a block's tail.

Wang et al., ECA-Net, CVPR 2020, https://arxiv.org/abs/1910.03151, eq. 9. Shapes: B images, C channels, H x W pixels,
k taps, odd.
"""

from torch import Tensor

from seattn.ops._tail.excitation import Excitation
from seattn.ops._tail.norm import BatchNorm
from seattn.ops._tail.run import fx_leaf, reference, run


@fx_leaf
def efficient_channel_attn(x: Tensor, weight: Tensor, *, gate: str = "sigmoid") -> Tensor:
    """y = x * gate(conv1d(mean_hw(x), weight)), zeros beyond the first and the last channel.

    Args:
        x: (B, C, H, W), floating point; NCHW and channels_last without a copy.
        weight: (k), k odd.
        gate: sigmoid, two_sigmoid or hard_sigmoid.

    Returns:
        (B, C, H, W) with the dtype and memory format of x.

    Raises:
        ValueError: for shapes that do not fit, mixed devices, a dtype that is not floating point, or an unknown name.
        RuntimeError: if the kernels are set to "triton" or "torch" and that one cannot run.
    """
    return run(x, None, Excitation("eca", weight, gate=gate), None, "identity")


@fx_leaf
def efficient_channel_attn_add_act(
    x: Tensor, shortcut: Tensor, weight: Tensor, *, gate: str = "sigmoid", out_act: str = "relu"
) -> Tensor:
    """y = out_act(efficient_channel_attn(x) + shortcut); shortcut (B, C, H, W), out_act relu or identity."""
    return run(x, shortcut, Excitation("eca", weight, gate=gate), None, out_act)


@fx_leaf
def batch_norm_efficient_channel_attn_add_act(
    x: Tensor,
    shortcut: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    attn_weight: Tensor,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    gate: str = "sigmoid",
    out_act: str = "relu",
) -> Tensor:
    """y = out_act(efficient_channel_attn(batch_norm(x)) + shortcut).

    The norm's arguments and the errors as in `batch_norm_squeeze_excite_add_act`; attn_weight (k), k odd.
    """
    norm = BatchNorm(running_mean, running_var, weight, bias, training, momentum, eps)
    return run(x, shortcut, Excitation("eca", attn_weight, gate=gate), norm, out_act)


def efficient_channel_attn_reference(x: Tensor, weight: Tensor, *, gate: str = "sigmoid") -> Tensor:
    """The definition, in fp32 with one rounding. Arguments as in `efficient_channel_attn`."""
    return reference(x, None, Excitation("eca", weight, gate=gate), None, "identity")
