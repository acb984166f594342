"""What lies between the passes: from the squeeze to the gate and back, and the gradients of the gate's weights.

Shapes: N images, C channels, R hidden channels, k taps. squeeze, p, scale, dz, dp (N, C), hidden, dh (N, R): fp32.
    kind "se"   scale = gate(W2 act(W1 p + b1) + b2)    w1 (R, C), b1 (R), w2 (C, R), b2 (C)
    kind "ese"  scale = gate(W1 p + b1)                 w1 (C, C), b1 (C)
    kind "eca"  scale = gate(conv1d(p, w1))             w1 (k), zeros outside
    kind "none" no gate
p is the mean of the normalised map, from squeeze by the norm's affine map.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from seattn_kernels._conv import conv, conv_weight_grad
from seattn_kernels._linear import linear

KINDS = ("none", "se", "ese", "eca")
NO_NORM: dict[str, Any] = {"weight_ptr": None, "bias_ptr": None, "mean_ptr": None, "var_ptr": None, "eps": 0.0}


class GateWeights(NamedTuple):
    """The gate's parameters, fp32 and contiguous; None where the kind or the module has none."""

    w1: Tensor | None
    b1: Tensor | None
    w2: Tensor | None
    b2: Tensor | None


class ExciteGrad(NamedTuple):
    """Gradients inside the gate. dz by its logits, dp by the squeeze; dh and hidden_act only for kind "se"."""

    dz: Tensor
    dp: Tensor
    dh: Tensor
    hidden_act: Tensor


def excite(
    squeeze: Tensor,
    hidden: Tensor,
    scale: Tensor,
    weights: GateWeights,
    norm: dict[str, Any],
    kind: str,
    act: str,
    gate: str,
) -> None:
    """Fills hidden and scale from squeeze, in one launch, or two for kind "se". norm: see `linear`."""
    assert weights.w1 is not None
    if kind == "se":
        assert weights.w2 is not None
        linear(squeeze, weights.w1, hidden, norm, b=weights.b1)
        linear(hidden, weights.w2, scale, NO_NORM, b=weights.b2, in_act=act, out_gate=gate)
    elif kind == "ese":
        linear(squeeze, weights.w1, scale, norm, b=weights.b1, out_gate=gate)
    else:
        assert kind == "eca"
        conv(squeeze, weights.w1, scale, norm, out_gate=gate)


def excite_grad(grad: ExciteGrad, hidden: Tensor, w1: Tensor, w2: Tensor | None, kind: str, act: str) -> None:
    """Fills dp, and for kind "se" dh and hidden_act, from dz; as many launches as `excite`."""
    if kind == "se":
        assert w2 is not None
        linear(
            grad.dz, w2, grad.dh, NO_NORM, transposed=True, hidden=hidden, hidden_act=grad.hidden_act, out_act_grad=act
        )
        linear(grad.dh, w1, grad.dp, NO_NORM, transposed=True)
    elif kind == "ese":
        linear(grad.dz, w1, grad.dp, NO_NORM, transposed=True)
    else:
        assert kind == "eca"
        conv(grad.dz, w1, grad.dp, NO_NORM, transposed=True)


def gate_weight_grads(grad: ExciteGrad, p: Tensor, taps: int, kind: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dw1, db1, dw2, db2 in fp32; empty (0) where the kind has none. p (N, C); taps: k of kind "eca".

    The sum over images is one small matrix product each: torch's, in a fixed order; zeros for an empty batch.
    """
    none = grad.dz.new_empty(0)
    with torch.autocast(grad.dz.device.type, enabled=False):
        if kind == "se":
            return grad.dh.t() @ p, grad.dh.sum(0), grad.dz.t() @ grad.hidden_act, grad.dz.sum(0)
        if kind == "ese":
            return grad.dz.t() @ p, grad.dz.sum(0), none, none.clone()
        assert kind == "eca"
        return conv_weight_grad(grad.dz, p, taps), none, none.clone(), none.clone()
