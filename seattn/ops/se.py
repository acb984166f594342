"""Squeeze-excite: a gate for every channel of every image, from the means of all its channels.

Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507, eq. 2-4.
Shapes: B images, C channels, H x W pixels, R hidden channels.
"""

import torch
from torch import Tensor

from seattn.ops._tail.excitation import Excitation, squeeze_excite_scale
from seattn.ops._tail.run import fx_leaf, run


@fx_leaf
def squeeze_excite(
    x: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    act: str = "relu",
    gate: str = "sigmoid",
) -> Tensor:
    """y = x * gate(W2 act(W1 mean_hw(x) + b1) + b2), by the implementation that `set_kernels` says.

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
        RuntimeError: if the kernels are set to "triton" or "torch" and that one cannot run.
    """
    return run(x, None, Excitation("se", w1, b1, w2, b2, act, gate), None, "identity")


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
    """The definition; the others agree with it in values and gradients. Arguments as in `squeeze_excite`.

    Differentiable any number of times, in forward and backward mode; runs on every device, and in TorchScript.
    A backward that itself runs under autocast (torch.compile's does) lowers the gradients of the two small products.
    """
    # One cast, shared by mean and product, so that the backward adds in fp32 and rounds dx once.
    wide = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
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
    wide = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    return squeeze_excite_scale(wide.mean((2, 3)), w1, b1, w2, b2, act, gate)
