"""The attention tail written out in plain torch, for the launcher's tests; differentiated by autograd, in float64.

Shapes: N images, C channels, R hidden channels. Independent of seattn.ops: only the formulas are shared.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ACTS = {"relu": F.relu, "silu": F.silu, "gelu": F.gelu, "hard_swish": F.hardswish, "identity": lambda h: h}
GATES = {
    "sigmoid": torch.sigmoid,
    "two_sigmoid": lambda z: 2 * torch.sigmoid(z),
    "hard_sigmoid": F.hardsigmoid,
}
OUT_ACTS = {"relu": F.relu, "identity": lambda y: y}


class Inputs(NamedTuple):
    """What a tail takes; None where it does not."""

    x: Tensor
    shortcut: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None
    var: Tensor | None
    w1: Tensor | None
    b1: Tensor | None
    w2: Tensor | None
    b2: Tensor | None


class Config(NamedTuple):
    """What a tail does."""

    kind: str = "se"
    act: str = "relu"
    gate: str = "sigmoid"
    norm: str = "none"
    eps: float = 1e-5
    out_act: str = "relu"


def per_channel(v: Tensor) -> Tensor:
    return v[..., None, None]


def tail(inputs: Inputs, config: Config) -> tuple[Tensor, Tensor]:
    """(y, what out_act is given): (N, C, H, W) each."""
    x, shortcut, weight, bias, mean, var, w1, b1, w2, b2 = inputs
    act, gate = ACTS[config.act], GATES[config.gate]
    if config.norm == "batch":
        var, mean = torch.var_mean(x, (0, 2, 3), unbiased=False)
    if config.norm != "none":
        x = (x - per_channel(mean)) / per_channel(var + config.eps).sqrt()
        x = x if weight is None else x * per_channel(weight)
        x = x if bias is None else x + per_channel(bias)
    p = x.mean((2, 3))  # (N, C)
    if config.kind == "se":
        x = x * per_channel(gate(F.linear(act(F.linear(p, w1, b1)), w2, b2)))
    elif config.kind == "ese":
        x = x * per_channel(gate(F.linear(p, w1, b1)))
    elif config.kind == "eca":
        k = w1.shape[0]
        x = x * per_channel(gate(F.conv1d(p[:, None], w1[None, None], padding=k // 2)[:, 0]))
    before = x if shortcut is None else x + shortcut
    return OUT_ACTS[config.out_act](before), before
