"""Squeeze-excite: a gate for every channel of every image, from the means of all its channels.

Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, https://arxiv.org/abs/1709.01507, eq. 2-4.
Shapes: B images, C channels, H x W pixels, R hidden channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from seattn.ops._kernel import use_triton

ACTS = ("relu", "silu", "gelu", "hard_swish", "identity")
GATES = ("sigmoid", "two_sigmoid", "hard_sigmoid")
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


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
    """y = x * gate(W2 act(W1 mean_hw(x) + b1) + b2), by the kernel or the reference as `set_kernels` says.

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
        ValueError: for shapes that do not fit, a dtype that is not floating point, or an unknown act or gate.
        RuntimeError: if the kernels are set to "triton" and the kernel cannot run.
    """
    if has_torch_function_unary(x):  # torch.fx then records this call as one node, without looking inside
        result: Tensor = handle_torch_function(squeeze_excite, (x,), x, w1, b1, w2, b2, act=act, gate=gate)
        return result
    _check(x, w1, b1, w2, b2, act, gate)
    if not use_triton(x, _kernel_cannot_take):
        return squeeze_excite_reference(x, w1, b1, w2, b2, act, gate)
    op = torch.ops.seattn.squeeze_excite_fwd.default
    y: Tensor = op(x, w1.float(), _to(b1, torch.float32), w2.float(), _to(b2, torch.float32), act, gate)[0]
    return y


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
    """The definition; the kernel agrees with it in values and gradients. Arguments as in `squeeze_excite`.

    Differentiable any number of times, in forward and backward mode; runs on every device, and in TorchScript.
    A backward that itself runs under autocast (torch.compile's does) lowers the gradients of the two small products.
    """
    # One cast, shared by mean and product, so that the backward adds in fp32 and rounds dx once.
    wide = x.to(_compute_dtype(x))
    scale = _excite(wide.mean((2, 3)), w1, b1, w2, b2, act, gate)  # (B, C)
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
    return _excite(x.to(_compute_dtype(x)).mean((2, 3)), w1, b1, w2, b2, act, gate)


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _to(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if t is None else t.to(dtype)


def _excite(mean: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str) -> Tensor:
    """(B, C) means to (B, C) gates, in the dtype of `mean`, which autocast would otherwise lower to bf16."""
    if torch.jit.is_scripting():
        return _excite_as_is(mean, w1, b1, w2, b2, act, gate)
    else:  # TorchScript would compile what follows an early return; it leaves this branch alone
        if mean.is_meta:  # the one device without autocast
            return _excite_as_is(mean, w1, b1, w2, b2, act, gate)
        with torch.autocast(mean.device.type, enabled=False):
            return _excite_as_is(mean, w1, b1, w2, b2, act, gate)


def _excite_as_is(
    mean: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str
) -> Tensor:
    dtype = mean.dtype
    hidden = _linear(mean, w1.to(dtype), _to(b1, dtype))  # (B, R)
    return gate_fn(_linear(act_fn(hidden, act), w2.to(dtype), _to(b2, dtype)), gate)  # (B, C)


def _linear(v: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    if torch.jit.is_scripting():
        # TorchScript cannot switch off the autocast it is called under, which lowers matrix products but no plain one.
        out = (w * v[:, None]).sum(-1)
        return out if b is None else out + b
    return F.linear(v, w, b)


def act_fn(h: Tensor, act: str) -> Tensor:
    """The activation of that name."""
    if act == "relu":
        return F.relu(h)
    elif act == "silu":
        return F.silu(h)
    elif act == "gelu":
        return F.gelu(h)
    elif act == "hard_swish":
        return F.hardswish(h)
    elif act == "identity":
        return h
    raise ValueError(f"act must be relu, silu, gelu, hard_swish or identity; got {act}")


def gate_fn(z: Tensor, gate: str) -> Tensor:
    """The gate of that name."""
    if gate == "sigmoid":
        return z.sigmoid()
    elif gate == "two_sigmoid":
        return 2 * z.sigmoid()
    elif gate == "hard_sigmoid":
        return F.hardsigmoid(z)
    raise ValueError(f"gate must be sigmoid, two_sigmoid or hard_sigmoid; got {gate}")


def check_names(act: str, gate: str) -> None:
    """Raise ValueError unless both names are known: for a layer to call before it is ever run."""
    if act not in ACTS:
        raise ValueError(f"act must be one of {', '.join(ACTS)}; got {act!r}")
    if gate not in GATES:
        raise ValueError(f"gate must be one of {', '.join(GATES)}; got {gate!r}")


def _check(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str) -> None:
    check_names(act, gate)
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x must be (B, C, H, W) of a floating-point dtype; got {tuple(x.shape)} {x.dtype}")
    channels, height, width = x.shape[1], x.shape[2], x.shape[3]
    if channels == 0 or height == 0 or width == 0:
        raise ValueError(f"x must have at least one channel and one pixel; got {tuple(x.shape)}")
    if w1.dim() != 2 or w1.shape[0] == 0 or w1.shape[1] != channels:
        raise ValueError(
            f"w1 must be (R, {channels}) with R > 0, for the {channels} channels of x; got {tuple(w1.shape)}"
        )
    hidden = w1.shape[0]
    if w2.dim() != 2 or w2.shape[0] != channels or w2.shape[1] != hidden:
        raise ValueError(f"w2 must be ({channels}, {hidden}), the shape of w1 transposed; got {tuple(w2.shape)}")
    for name, bias, size in (("b1", b1, hidden), ("b2", b2, channels)):
        if bias is not None and (bias.dim() != 1 or bias.shape[0] != size):
            raise ValueError(f"{name} must be ({size},) or None; got {tuple(bias.shape)}")


def _kernel_cannot_take(x: Tensor) -> str | None:
    if x.dtype not in KERNEL_DTYPES:
        return f"the kernel takes float32, float16 and bfloat16, not {x.dtype}"
    if x.shape[1] * x.shape[2] * x.shape[3] >= 2**31:
        return f"the kernel takes images below 2**31 elements, not {tuple(x.shape[1:])}"
    return None
