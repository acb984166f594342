"""Excitations: from the mean of every channel to its gate, and back. Everything here is small: (N, C), never a map.

The formulas and shapes are in `seattn_kernels.arguments.Excitation`. N images, C channels, R hidden channels, k taps.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seattn.ops._checks import check_device, check_vector
from seattn.ops._maps import cast
from seattn.ops._operator import graph_without_autocast
from seattn.ops._tail.activations import act_fn, act_grad, check_names, gate_fn, gate_grad
from seattn_kernels import arguments

E = TypeVar("E", bound="Excitation")
ExcitationGrads = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class Excitation(arguments.Excitation):
    """No attention; the subclasses are the kinds of attention. Frozen, so that a plan for a module can hold it."""

    def in_dtype(self: E, dtype: torch.dtype) -> E:
        """The same with all weights in `dtype`."""
        for weight in (self.w1, self.b1, self.w2, self.b2):
            if weight is not None and weight.dtype != dtype:
                w1, b1, w2, b2 = (cast(w, dtype) for w in (self.w1, self.b1, self.w2, self.b2))
                return replace(self, w1=w1, b1=b1, w2=w2, b2=b2)
        return self

    def check(self, x: Tensor) -> None:
        """Raise ValueError unless the names are known and the weights fit x (N, C, H, W)."""
        check_names(self.act, self.gate)

    def reference(self, p: Tensor) -> Tensor:
        """The definition: gates (N, C) in the dtype of p, whatever the dtype of the weights, under autocast too."""
        raise NotImplementedError

    def gates(self, p: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gates (N, C) and, of kind "se", the hidden values (N, R) before the activation. Weights in the dtype of p."""
        raise NotImplementedError

    def grads(self, dscale: Tensor, p: Tensor, hidden: Tensor, scale: Tensor) -> ExcitationGrads:
        """(dp, dw1, db1, dw2, db2) from the gradient of the gates; empty (0) where the kind has no such weight."""
        raise NotImplementedError


NO_EXCITATION = Excitation()


@dataclass(frozen=True, eq=False, kw_only=True)
class SE(Excitation):
    """Hu et al., CVPR 2018, https://arxiv.org/abs/1709.01507, eq. 3."""

    kind: str = "se"
    w1: Tensor
    w2: Tensor

    def check(self, x: Tensor) -> None:
        check_names(self.act, self.gate)
        channels, first, second = x.shape[1], self.w1.shape, self.w2.shape
        if len(first) != 2 or first[0] == 0 or first[1] != channels:
            raise ValueError(
                f"w1 must be (R, {channels}) with R > 0, for the {channels} channels of x; got {tuple(first)}"
            )
        hidden = first[0]
        if second != (channels, hidden):
            raise ValueError(f"w2 must be ({channels}, {hidden}), the shape of w1 transposed; got {tuple(second)}")
        check_device("w1", self.w1, x)
        check_device("w2", self.w2, x)
        check_vector("b1", self.b1, hidden, x)
        check_vector("b2", self.b2, channels, x)

    def reference(self, p: Tensor) -> Tensor:
        return squeeze_excite_scale(p, self.w1, self.b1, self.w2, self.b2, self.act, self.gate)

    def gates(self, p: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden = F.linear(p, self.w1, self.b1)  # (N, R)
        return gate_fn(F.linear(act_fn(hidden, self.act), self.w2, self.b2), self.gate), hidden

    def grads(self, dscale: Tensor, p: Tensor, hidden: Tensor, scale: Tensor) -> ExcitationGrads:
        dz = gate_grad(dscale, scale, self.gate)  # (N, C)
        dh = act_grad(dz @ self.w2, hidden, self.act)  # (N, R)
        return dh @ self.w1, dh.t() @ p, dh.sum(0), dz.t() @ act_fn(hidden, self.act), dz.sum(0)


@dataclass(frozen=True, eq=False, kw_only=True)
class EffectiveSE(Excitation):
    """Lee and Park, CenterMask, CVPR 2020, https://arxiv.org/abs/1911.06667, eq. 4."""

    kind: str = "ese"
    w1: Tensor

    def check(self, x: Tensor) -> None:
        check_names(self.act, self.gate)
        channels = x.shape[1]
        if self.w1.shape != (channels, channels):
            raise ValueError(f"weight must be ({channels}, {channels}); got {tuple(self.w1.shape)}")
        check_device("weight", self.w1, x)
        check_vector("bias", self.b1, channels, x)

    def reference(self, p: Tensor) -> Tensor:
        with graph_without_autocast(p):
            return gate_fn(F.linear(p, self.w1.to(p.dtype), cast(self.b1, p.dtype)), self.gate)

    def gates(self, p: Tensor) -> tuple[Tensor, Tensor | None]:
        return gate_fn(F.linear(p, self.w1, self.b1), self.gate), None

    def grads(self, dscale: Tensor, p: Tensor, hidden: Tensor, scale: Tensor) -> ExcitationGrads:
        dz = gate_grad(dscale, scale, self.gate)  # (N, C)
        return dz @ self.w1, dz.t() @ p, dz.sum(0), p.new_empty(0), p.new_empty(0)


@dataclass(frozen=True, eq=False, kw_only=True)
class ECA(Excitation):
    """Wang et al., ECA-Net, CVPR 2020, https://arxiv.org/abs/1910.03151, eq. 9."""

    kind: str = "eca"
    w1: Tensor

    def check(self, x: Tensor) -> None:
        check_names(self.act, self.gate)
        if self.w1.dim() != 1 or self.w1.shape[0] % 2 == 0:
            raise ValueError(f"weight must be (k,) with k odd; got {tuple(self.w1.shape)}")
        check_device("weight", self.w1, x)

    def reference(self, p: Tensor) -> Tensor:
        with graph_without_autocast(p):
            return gate_fn(_conv1d(p, self.w1.to(p.dtype)), self.gate)

    def gates(self, p: Tensor) -> tuple[Tensor, Tensor | None]:
        return gate_fn(conv_over_channels(p, self.w1), self.gate), None

    def grads(self, dscale: Tensor, p: Tensor, hidden: Tensor, scale: Tensor) -> ExcitationGrads:
        dz, taps = gate_grad(dscale, scale, self.gate), self.w1.numel()
        windows = F.pad(p, (taps // 2, taps // 2)).unfold(1, taps, 1)  # (N, C, k)
        dw1 = (windows * dz.unsqueeze(2)).sum((0, 1))
        empty = partial(p.new_empty, 0)  # no two results of an operator may be the same tensor
        return conv_over_channels(dz, self.w1.flip(0)), dw1, empty(), empty(), empty()


EXCITATIONS: dict[str, type[Excitation]] = {
    "none": Excitation,
    "se": SE,
    "ese": EffectiveSE,
    "eca": ECA,
}


def squeeze_excite_scale(
    mean: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str
) -> Tensor:
    """(N, C) means to (N, C) gates in the dtype of `mean`, under autocast too. TorchScript compiles it."""
    if torch.jit.is_scripting():
        return _scale(mean, w1, b1, w2, b2, act, gate)
    else:  # TorchScript does not compile this branch; it would compile statements after an early return
        with graph_without_autocast(mean):
            return _scale(mean, w1, b1, w2, b2, act, gate)


def _scale(mean: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, act: str, gate: str) -> Tensor:
    dtype = mean.dtype
    hidden = _linear(mean, w1.to(dtype), cast(b1, dtype))  # (N, R)
    return gate_fn(_linear(act_fn(hidden, act), w2.to(dtype), cast(b2, dtype)), gate)  # (N, C)


def _linear(v: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    if torch.jit.is_scripting():
        # TorchScript cannot leave the autocast that surrounds it, which lowers matrix products but not this product.
        out = (w * v[:, None]).sum(-1)
        return out if b is None else out + b
    return F.linear(v, w, b)


def _conv1d(p: Tensor, w: Tensor) -> Tensor:
    return F.conv1d(p.unsqueeze(1), w.view(1, 1, -1), padding=w.numel() // 2).squeeze(1)


def conv_over_channels(p: Tensor, w: Tensor) -> Tensor:
    """conv1d of every row of p (N, C) with w (k), padded by k // 2 with zeros.

    On a CPU a sum of shifted rows takes less time than torch's conv1d, except for a single image.
    """
    if p.shape[0] == 1 or not p.is_cpu:
        return _conv1d(p, w)
    taps, channels = w.numel(), p.shape[1]
    rows = F.pad(p, (taps // 2, taps // 2))  # (N, C + k - 1)
    y = rows[:, :channels] * w[0]
    for i in range(1, taps):
        y.addcmul_(rows[:, i : i + channels], w[i])
    return y
