"""Efficient channel attention, alone and as a block's tail: a gate for every channel from the means of its neighbours.

Wang et al., ECA-Net, CVPR 2020, https://arxiv.org/abs/1910.03151, eq. 9. Shapes: B images, C channels, H x W pixels,
k taps, odd.
"""

from torch import Tensor

from seattn.ops._operator import definition
from seattn.ops._tail.excitation import ECA
from seattn.ops._tail.norm import BatchNorm
from seattn.ops._tail.run import Tail, reference, tail_op


@tail_op
def efficient_channel_attn(x: Tensor, weight: Tensor, *, gate: str = "sigmoid") -> Tail:
    """y = x * gate(conv1d(mean_hw(x), weight)); the convolution pads the channels with zeros.

    Args:
        x: (B, C, H, W), floating point; NCHW and channels_last without a copy.
        weight: (k), k odd.
        gate: sigmoid, two_sigmoid or hard_sigmoid.

    The result and the errors are as in `seattn.ops.squeeze_excite`.
    """
    return Tail(x, None, ECA(w1=weight, gate=gate))


@tail_op
def efficient_channel_attn_add_act(
    x: Tensor, shortcut: Tensor, weight: Tensor, *, gate: str = "sigmoid", out_act: str = "relu"
) -> Tail:
    """y = out_act(efficient_channel_attn(x) + shortcut) with shortcut (B, C, H, W) and out_act relu or identity.

    x, weight, gate, the result and the errors are as in `efficient_channel_attn`.
    """
    return Tail(x, shortcut, ECA(w1=weight, gate=gate), out_act=out_act)


@tail_op
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
) -> Tail:
    """y = out_act(efficient_channel_attn(batch_norm(x)) + shortcut).

    attn_weight is (k), k odd. The other arguments and the errors are as in `batch_norm_squeeze_excite_add_act`.
    """
    norm = BatchNorm(running_mean, running_var, weight, bias, training, momentum, eps)
    return Tail(x, shortcut, ECA(w1=attn_weight, gate=gate), norm, out_act)


efficient_channel_attn_reference = definition(efficient_channel_attn, reference)
