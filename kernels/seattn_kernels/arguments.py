"""The arguments of an operator besides its maps: an excitation and a norm. seattn.ops uses them too, without Triton.

Shapes: N images, C channels, R hidden channels, k taps.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Excitation:
    """The weights that turn p (N, C), the mean of every channel, into a gate (N, C) for every channel.

    Weights that a kind does not use are None; fp32 and contiguous where a kernel reads them.
        kind "none"  scale = 1
        kind "se"    scale = gate(W2 act(W1 p + b1) + b2)    w1 (R, C), b1 (R) or None, w2 (C, R), b2 (C) or None
        kind "ese"   scale = gate(W1 p + b1)                 w1 (C, C), b1 (C) or None
        kind "eca"   scale = gate(conv1d(p, w1))             w1 (k) with k odd; the channels are padded with zeros
    act is relu, silu, gelu, hard_swish or identity; gate is sigmoid, two_sigmoid or hard_sigmoid.
    """

    kind: str = "none"
    w1: Tensor | None = None
    b1: Tensor | None = None
    w2: Tensor | None = None
    b2: Tensor | None = None
    act: str = "identity"
    gate: str = "sigmoid"


@dataclass(frozen=True, eq=False)
class Norm:
    """normed = weight * (x - mean) / sqrt(var + eps) + bias, each (C) or None.

    kind: "none" (normed = x), "frozen" (mean and variance are given) or "batch" (the mean and the biased variance of x,
    which the forward computes and the backward gets).
    """

    kind: str = "none"
    weight: Tensor | None = None
    bias: Tensor | None = None
    mean: Tensor | None = None
    var: Tensor | None = None
    eps: float = 0.0


NO_NORM = Norm()


@dataclass(frozen=True, eq=False)
class Saved:
    """The values that a forward saves for its backward, fp32; empty (0) where the kind of excitation has none.

    squeeze (N, C) is the mean of x, before a norm; hidden (N, R) is W1 p + b1; scale (N, C) is the gate.
    """

    squeeze: Tensor
    hidden: Tensor
    scale: Tensor
