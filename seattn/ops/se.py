"""Squeeze-excite and effective squeeze-excite: a gate for every channel from the means of all channels of its image.

Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507, eq. 2-4 and figure 3.
Lee and Park, CenterMask, CVPR 2020, https://arxiv.org/abs/1911.06667, eq. 4.
Ioffe and Szegedy, Batch Normalization, ICML 2015, https://arxiv.org/abs/1502.03167.
Shapes: B images, C channels, H x W pixels, R hidden channels.
"""

from torch import Tensor

from seattn.ops._maps import compute_dtype
from seattn.ops._operator import definition
from seattn.ops._tail.excitation import SE, EffectiveSE, squeeze_excite_scale
from seattn.ops._tail.norm import BatchNorm
from seattn.ops._tail.run import Tail, reference, tail_op


@tail_op
def squeeze_excite(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    act: str = "relu",
    gate: str = "sigmoid",
) -> Tail:
    """y = x * gate(W2 act(W1 mean_hw(x) + b1) + b2), by the implementation that `set_kernels` chose.

    Computed in fp32 (float64 for a float64 x), under autocast too; the weights may differ from x in dtype.

    Args:
        x: (B, C, H, W), floating point; NCHW and channels_last without a copy. At least one pixel; B may be 0.
        w1, b1: (R, C) and (R) or None: the squeeze to R hidden channels.
        w2, b2: (C, R) and (C) or None: the excitation.
        act: relu, silu, gelu (exact), hard_swish or identity.
        gate: sigmoid, two_sigmoid (2 * sigmoid: 1 at zero) or hard_sigmoid (relu6(z + 3) / 6).

    Returns:
        (B, C, H, W) with the dtype and memory format of x.

    Raises:
        ValueError: for shapes that do not fit, mixed devices, a dtype that is not floating point, or an unknown name.
        RuntimeError: if the kernels are set to "triton" or "torch" and that implementation cannot run.
    """
    return Tail(x, None, SE(w1=w1, b1=b1, w2=w2, b2=b2, act=act, gate=gate))


# The two references take act and gate by position as well: TorchScript knows no keyword-only arguments with defaults.


def squeeze_excite_reference(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    act: str = "relu",
    gate: str = "sigmoid",
) -> Tensor:
    """The definition, with which the other implementations agree in values and gradients.

    Arguments as in `squeeze_excite`.

    It is differentiable any number of times, in forward and backward mode, and runs on every device and in TorchScript.
    If the backward runs under autocast too, as under torch.compile, the gradients of the two small products are
    computed in the dtype of autocast.
    """
    # One cast, shared by mean and product, so that the backward adds in fp32 and rounds dx once.
    wide = x.to(compute_dtype(x))
    scale = squeeze_excite_scale(wide.mean((2, 3)), w1, b1, w2, b2, act, gate)  # (B, C)
    return (wide * scale[:, :, None, None]).to(x.dtype)


def squeeze_excite_gate_reference(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    act: str = "relu",
    gate: str = "sigmoid",
) -> Tensor:
    """The factor of every channel, (B, C) in fp32 (float64 for a float64 x). Arguments as in `squeeze_excite`."""
    wide = x.to(compute_dtype(x))
    return squeeze_excite_scale(wide.mean((2, 3)), w1, b1, w2, b2, act, gate)


@tail_op
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
) -> Tail:
    """y = out_act(squeeze_excite(batch_norm(x)) + shortcut); the squeeze is taken from the norm's own statistics.

    Args:
        x: (B, C, H, W), floating point: the output of the last convolution of the branch.
        shortcut: (B, C, H, W), converted to the dtype of x; or None.
        running_mean, running_var, weight, bias, training, momentum, eps: as in `torch.nn.functional.batch_norm`; the
            running statistics are updated in place where training is True.
        w1, b1, w2, b2, act, gate: as in `squeeze_excite`; the result and the other errors are as there, too.
        out_act: relu or identity.

    Raises:
        ValueError: also for a momentum outside 0..1, or if training is True and a channel has only one value.
    """
    norm = BatchNorm(running_mean, running_var, weight, bias, training, momentum, eps)
    return Tail(x, shortcut, SE(w1=w1, b1=b1, w2=w2, b2=b2, act=act, gate=gate), norm, out_act)


@tail_op
def effective_squeeze_excite(x: Tensor, weight: Tensor, bias: Tensor | None, *, gate: str = "hard_sigmoid") -> Tail:
    """y = x * gate(W mean_hw(x) + b); x, gate, result and errors as in `squeeze_excite`.

    Args:
        weight, bias: (C, C) and (C) or None.
    """
    return Tail(x, None, EffectiveSE(w1=weight, b1=bias, gate=gate))


@tail_op
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
) -> Tail:
    """y = out_act(squeeze_excite(x) + shortcut); the other arguments, result and errors as in `squeeze_excite`.

    Args:
        shortcut: (B, C, H, W), floating point; converted to the dtype of x, as by `x += shortcut`.
        out_act: relu or identity.
    """
    return Tail(x, shortcut, SE(w1=w1, b1=b1, w2=w2, b2=b2, act=act, gate=gate), out_act=out_act)


squeeze_excite_add_act_reference = definition(squeeze_excite_add_act, reference)
batch_norm_squeeze_excite_add_act_reference = definition(batch_norm_squeeze_excite_add_act, reference)
effective_squeeze_excite_reference = definition(effective_squeeze_excite, reference)
