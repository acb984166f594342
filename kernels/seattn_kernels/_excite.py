"""The small steps between the passes: from the squeeze to the gate and back, and the gradients of the gate's weights.

Shapes: N images, C channels, R hidden channels, k taps. squeeze, p, scale, dz, dp (N, C), hidden, dh (N, R): fp32.
p is the mean of the normalised map: the norm's affine map of squeeze. The kinds of excitation are those of `arguments`.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from seattn_kernels._conv import conv, conv_weight_grad
from seattn_kernels._linear import linear
from seattn_kernels.arguments import Excitation, Norm, Saved

KINDS = ("none", "se", "ese", "eca")


class ExciteGrad(NamedTuple):
    """Gradients inside the gate: dz of its logits, dp of the squeeze. dh and hidden_act are for kind "se" only."""

    dz: Tensor
    dp: Tensor
    dh: Tensor
    hidden_act: Tensor

    @staticmethod
    def like(saved: Saved) -> "ExciteGrad":
        """Memory without values for the gradients of a forward that saved `saved`."""
        return ExciteGrad(
            dz=torch.empty_like(saved.scale),
            dp=torch.empty_like(saved.scale),
            dh=torch.empty_like(saved.hidden),
            hidden_act=torch.empty_like(saved.hidden),
        )


def excite(e: Excitation, norm: Norm, saved: Saved) -> None:
    """Fill saved.hidden and saved.scale from saved.squeeze, in one launch, or two for kind "se"."""
    assert e.w1 is not None
    if e.kind == "se":
        assert e.w2 is not None
        linear(saved.squeeze, e.w1, saved.hidden, norm=norm, b=e.b1)
        linear(saved.hidden, e.w2, saved.scale, b=e.b2, in_act=e.act, out_gate=e.gate)
    elif e.kind == "ese":
        linear(saved.squeeze, e.w1, saved.scale, norm=norm, b=e.b1, out_gate=e.gate)
    else:
        assert e.kind == "eca"
        conv(saved.squeeze, e.w1, saved.scale, norm=norm, out_gate=e.gate)


def excite_grad(e: Excitation, saved: Saved, grad: ExciteGrad) -> None:
    """Fill grad.dp, and for kind "se" grad.dh and grad.hidden_act, from grad.dz; as many launches as `excite`."""
    assert e.w1 is not None
    if e.kind == "se":
        assert e.w2 is not None
        hidden, hidden_act = saved.hidden, grad.hidden_act
        linear(grad.dz, e.w2, grad.dh, transposed=True, hidden=hidden, hidden_act=hidden_act, out_act_grad=e.act)
        linear(grad.dh, e.w1, grad.dp, transposed=True)
    elif e.kind == "ese":
        linear(grad.dz, e.w1, grad.dp, transposed=True)
    else:
        assert e.kind == "eca"
        conv(grad.dz, e.w1, grad.dp, transposed=True)


def excite_weight_grads(e: Excitation, grad: ExciteGrad, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dw1, db1, dw2, db2 in fp32; empty (0) where the kind has no such weight. p (N, C).

    Each sum over images is one small matrix product of torch, in a fixed order; zeros for an empty batch.
    """
    empty = partial(p.new_empty, 0)  # no two results of an operator may be the same tensor
    if e.kind == "none":
        return empty(), empty(), empty(), empty()
    with torch.autocast(p.device.type, enabled=False):
        if e.kind == "se":
            return grad.dh.t() @ p, grad.dh.sum(0), grad.dz.t() @ grad.hidden_act, grad.dz.sum(0)
        if e.kind == "ese":
            return grad.dz.t() @ p, grad.dz.sum(0), empty(), empty()
        assert e.kind == "eca"
        assert e.w1 is not None
        return conv_weight_grad(grad.dz, p, e.w1.shape[0]), empty(), empty(), empty()
