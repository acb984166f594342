"""Excitations: from the mean of every channel to its gate, and back. All small: (N, C), never the size of x.

Kinds: "none" (1), "se" gate(W2 act(W1 p + b1) + b2), "ese" gate(W1 p + b1), "eca" gate(conv1d(p, w1)).
Shapes: N images, C channels, R hidden channels, k taps; w1 (R, C), (C, C) or (k), w2 (C, R), biases (R) or (C).
"""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seattn.ops._checks import check_device, check_vector

ACTS = ("relu", "silu", "gelu", "hard_swish", "identity")
GATES = ("sigmoid", "two_sigmoid", "hard_sigmoid")


class Excitation(NamedTuple):
    """One excitation with its weights; `none()`, `squeeze(...)` and so on in the ops build it."""

    kind: str
    w1: Tensor | None = None
    b1: Tensor | None = None
    w2: Tensor | None = None
    b2: Tensor | None = None
    act: str = "identity"
    gate: str = "sigmoid"


NO_EXCITATION = Excitation("none")


def squeeze_excite_scale(
    mean: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str
) -> Tensor:
    """(N, C) means to (N, C) gates in the dtype of `mean`, which autocast would otherwise lower; scriptable."""
    if torch.jit.is_scripting():
        return _scale_as_is(mean, w1, b1, w2, b2, act, gate)
    else:  # TorchScript would compile what follows an early return; it leaves this branch alone
        if mean.is_meta:  # the one device without autocast
            return _scale_as_is(mean, w1, b1, w2, b2, act, gate)
        with torch.autocast(mean.device.type, enabled=False):
            return _scale_as_is(mean, w1, b1, w2, b2, act, gate)


def _scale_as_is(
    mean: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str
) -> Tensor:
    dtype = mean.dtype
    hidden = _linear(mean, w1.to(dtype), _to(b1, dtype))  # (N, R)
    return gate_fn(_linear(act_fn(hidden, act), w2.to(dtype), _to(b2, dtype)), gate)  # (N, C)


def _linear(v: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    if torch.jit.is_scripting():
        # TorchScript cannot switch off the autocast it is called under, which lowers matrix products but no plain one.
        out = (w * v[:, None]).sum(-1)
        return out if b is None else out + b
    return F.linear(v, w, b)


def _to(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if t is None else t.to(dtype)


def excite_reference(p: Tensor, e: Excitation) -> Tensor:
    """Gates (N, C) in the dtype of p, whatever the dtype of the weights, under autocast too."""
    if e.kind == "se":
        assert e.w1 is not None
        assert e.w2 is not None
        return squeeze_excite_scale(p, e.w1, e.b1, e.w2, e.b2, e.act, e.gate)
    if p.is_meta:  # the one device without autocast
        return _excite_reference(p, e)
    with torch.autocast(p.device.type, enabled=False):
        return _excite_reference(p, e)


def _excite_reference(p: Tensor, e: Excitation) -> Tensor:
    assert e.w1 is not None
    w = e.w1.to(p.dtype)
    if e.kind == "ese":
        return gate_fn(F.linear(p, w, _to(e.b1, p.dtype)), e.gate)
    assert e.kind == "eca"
    return gate_fn(F.conv1d(p.unsqueeze(1), w.view(1, 1, -1), padding=w.numel() // 2).squeeze(1), e.gate)


def excite(p: Tensor, e: Excitation) -> tuple[Tensor, Tensor | None]:
    """Gates (N, C) and, for "se", the hidden values (N, R) before the activation. Weights in the dtype of p."""
    if e.kind == "se":
        assert e.w1 is not None
        assert e.w2 is not None
        hidden = F.linear(p, e.w1, e.b1)  # (N, R)
        return gate_fn(F.linear(act_fn(hidden, e.act), e.w2, e.b2), e.gate), hidden
    assert e.w1 is not None
    if e.kind == "ese":
        return gate_fn(F.linear(p, e.w1, e.b1), e.gate), None
    assert e.kind == "eca"
    return gate_fn(_across_channels(p, e.w1), e.gate), None


def _across_channels(p: Tensor, w: Tensor) -> Tensor:
    """conv1d of every row of p (N, C) with w (k), padded by k // 2 with zeros.

    On a CPU a sum of shifted rows takes less time than torch's own, except for a single image.
    """
    taps = w.numel()
    if p.shape[0] == 1 or not p.is_cpu:
        return F.conv1d(p.unsqueeze(1), w.view(1, 1, -1), padding=taps // 2).squeeze(1)
    rows, channels = F.pad(p, (taps // 2, taps // 2)), p.shape[1]  # (N, C + k - 1)
    y = rows[:, :channels] * w[0]
    for i in range(1, taps):
        y.addcmul_(rows[:, i : i + channels], w[i])
    return y


def excite_grad(
    dscale: Tensor, p: Tensor, hidden: Tensor, scale: Tensor, e: Excitation
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(dp, dw1, db1, dw2, db2) from the gradient of the gates; empty (0) for weights that the kind has not."""
    none = functools.partial(p.new_empty, 0)
    assert e.w1 is not None
    dz = gate_grad(dscale, scale, e.gate)  # (N, C)
    if e.kind == "se":
        assert e.w2 is not None
        dh = act_grad(dz @ e.w2, hidden, e.act)  # (N, R)
        return dh @ e.w1, dh.t() @ p, dh.sum(0), dz.t() @ act_fn(hidden, e.act), dz.sum(0)
    if e.kind == "ese":
        return dz @ e.w1, dz.t() @ p, dz.sum(0), none(), none()
    assert e.kind == "eca"
    taps = e.w1.numel()
    dp = _across_channels(dz, e.w1.flip(0))
    windows = F.pad(p, (taps // 2, taps // 2)).unfold(1, taps, 1)  # (N, C, k)
    return dp, (windows * dz.unsqueeze(2)).sum((0, 1)), none(), none(), none()


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


def gate_grad(grad: Tensor, scale: Tensor, gate: str) -> Tensor:
    """The gradient of the logits from that of the gates, at the gates' values."""
    if gate == "sigmoid":
        return torch.ops.aten.sigmoid_backward(grad, scale)
    if gate == "two_sigmoid":
        return grad * scale * (1 - scale / 2)
    assert gate == "hard_sigmoid"
    return torch.where((scale > 0) & (scale < 1), grad / 6, torch.zeros_like(grad))


def act_grad(grad: Tensor, hidden: Tensor, act: str) -> Tensor:
    """The gradient of the hidden values from that of their activations."""
    aten = torch.ops.aten
    if act == "relu":
        return aten.threshold_backward(grad, hidden, 0)
    if act == "silu":
        return aten.silu_backward(grad, hidden)
    if act == "gelu":
        return aten.gelu_backward(grad, hidden)
    if act == "hard_swish":
        return aten.hardswish_backward(grad, hidden)
    assert act == "identity"
    return grad


def check_names(act: str, gate: str) -> None:
    """Raise ValueError unless both names are known: for a layer to call before it is ever run."""
    if act not in ACTS:
        raise ValueError(f"act must be one of {', '.join(ACTS)}; got {act!r}")
    if gate not in GATES:
        raise ValueError(f"gate must be one of {', '.join(GATES)}; got {gate!r}")


def check_excitation(e: Excitation, x: Tensor) -> None:
    """Names are known, and the weights fit the channels of x."""
    check_names(e.act, e.gate)
    channels = x.shape[1]
    if e.kind == "none":
        return
    assert e.w1 is not None
    if e.kind == "se":
        _check_matrices(e, channels)
    elif e.kind == "ese":
        if e.w1.dim() != 2 or e.w1.shape[0] != channels or e.w1.shape[1] != channels:
            raise ValueError(f"weight must be ({channels}, {channels}); got {tuple(e.w1.shape)}")
        check_vector("bias", e.b1, channels, x)
    elif e.w1.dim() != 1 or e.w1.shape[0] % 2 == 0:
        raise ValueError(f"weight must be (k,) with k odd; got {tuple(e.w1.shape)}")
    names = ("w1", "b1", "w2", "b2") if e.kind == "se" else ("weight", "bias")
    device = x.device
    for name, tensor in zip(names, (e.w1, e.b1, e.w2, e.b2), strict=False):
        if tensor is not None and tensor.device != device:
            check_device(name, tensor, x)


def _check_matrices(e: Excitation, channels: int) -> None:
    assert e.w1 is not None
    assert e.w2 is not None
    first, second = e.w1.shape, e.w2.shape
    if len(first) != 2 or first[0] == 0 or first[1] != channels:
        raise ValueError(f"w1 must be (R, {channels}) with R > 0, for the {channels} channels of x; got {tuple(first)}")
    hidden = first[0]
    if second != (channels, hidden):
        raise ValueError(f"w2 must be ({channels}, {hidden}), the shape of w1 transposed; got {tuple(second)}")
    for name, bias, size in (("b1", e.b1, hidden), ("b2", e.b2, channels)):
        if bias is not None and bias.shape != (size,):
            raise ValueError(f"{name} must be ({size},) or None; got {tuple(bias.shape)}")
