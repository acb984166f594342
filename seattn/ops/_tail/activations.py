"""The activations inside an excitation and the gates at its end, by name, with their derivatives."""

import torch
import torch.nn.functional as F
from torch import Tensor

ACTS = ("relu", "silu", "gelu", "hard_swish", "identity")
GATES = ("sigmoid", "two_sigmoid", "hard_sigmoid")


def check_names(act: str, gate: str) -> None:
    """Raise ValueError unless both names are known. A layer calls this when it is built."""
    if act not in ACTS:
        raise ValueError(f"act must be one of {', '.join(ACTS)}; got {act!r}")
    if gate not in GATES:
        raise ValueError(f"gate must be one of {', '.join(GATES)}; got {gate!r}")


# TorchScript compiles the next two functions.


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


def act_grad(grad: Tensor, hidden: Tensor, act: str) -> Tensor:
    """The gradient of the hidden values, from the gradient of their activations."""
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


def gate_grad(grad: Tensor, scale: Tensor, gate: str) -> Tensor:
    """The gradient of the logits, from the gradient and the values of the gates."""
    if gate == "sigmoid":
        return torch.ops.aten.sigmoid_backward(grad, scale)
    if gate == "two_sigmoid":
        return grad * scale * (1 - scale / 2)
    assert gate == "hard_sigmoid"
    return torch.where((scale > 0) & (scale < 1), grad / 6, torch.zeros_like(grad))
