"""Subclasses of residual blocks that add an attention layer at one of four places; the block keeps its parameters.

Hu et al., SENet, https://arxiv.org/abs/1709.01507, section 6.5 and figure 5: with branch F, shortcut S, attention A,
    standard  y = act(A(F(x)) + S(x))        pre       y = act(F(A(x)) + S(x))
    post      y = A(act(F(x) + S(x)))        identity  y = act(F(x) + A(S(x)))
A new kind of block is a class that inherits from `Attended` and the plain class, under `@attended(<plain class>)`.
Shapes: B images, C channels, H x W pixels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from seattn.blocks.fused.base import plain_class
from seattn.blocks.tail import can_trace_tail, residual_tail, traced_tail
from seattn.layers._registry import Registry
from seattn.ops._kernel import is_cpu_inference

Class = TypeVar("Class", bound=type["Attended"])

PLACEMENTS = ("standard", "pre", "post", "identity")

_ATTENDED: Registry[type[nn.Module]] = Registry("{key} has an attended class already: {value}")
NO_ACT = nn.Identity()


class Channels(NamedTuple):
    """The number of channels that enter the residual branch, and the number that leave the block."""

    inside: int
    outside: int


class Attended:
    """`forward` by the equations above; a subclass defines the branch, the shortcut and the addition.

    Attributes:
        attn_placement: one of `PLACEMENTS`.
    """

    _slot = "se"  # the attribute that holds the attention layer
    _has_own_place = False  # whether the plain class runs `se` at the standard place by itself
    _first, _last = "conv1", "conv3"  # the convolutions that the branch begins and ends with
    attn_placement: str

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self._steps(x)
        else:  # TorchScript does not compile this branch
            return _forward(self, x)

    def _steps(self, x: Tensor) -> Tensor:
        inner, shortcut = self._enter(x)  # (B, C, H, W) each
        if self.attn_placement == "pre":
            inner = self._attend(inner)
        elif self.attn_placement == "identity":
            shortcut = self._attend(shortcut)
        y = self._residual(inner)
        if self.attn_placement == "standard":
            y = self._attend(y)
        y = self._join(y, shortcut)
        if self.attn_placement == "post":
            y = self._attend(y)
        return y

    def _attend(self: Any, x: Tensor) -> Tensor:
        return self.se(x)

    def _enter(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """The input of the branch, and the shortcut, which is added to its output."""
        return x, (x if self.downsample is None else self.downsample(x))

    def _residual(self, x: Tensor) -> Tensor:
        """The residual branch, its last norm included."""
        raise NotImplementedError

    def _join(self, y: Tensor, shortcut: Tensor) -> Tensor:
        """The block's end: stochastic depth, addition, activation."""
        raise NotImplementedError

    def _after(self: Any) -> tuple[nn.Module | None, nn.Module]:
        """The modules of `_join`: stochastic depth or None, and the activation."""
        return None, NO_ACT

    @classmethod
    def _channels(cls, block: Any) -> Channels:
        first = getattr(block, "conv_s2d", None) or block.get_submodule(cls._first)
        return Channels(first.in_channels, block.get_submodule(cls._last).out_channels)

    @staticmethod
    def _adds(block: Any) -> bool:
        """Whether the block has a shortcut."""
        return True

    @staticmethod
    def _present(block: Any) -> nn.Module | None:
        """The attention that a block of the plain class has already."""
        se = getattr(block, "se", None)
        return None if type(se) is nn.Identity else se


def _forward(block: Attended, x: Tensor) -> Tensor:
    """Run the block: attention at the standard place, the addition and a ReLU are one op and one node of torch.fx."""
    if block.attn_placement != "standard" or not block._adds(block):
        return block._steps(x)
    drop_path, act = block._after()
    attn = getattr(block, block._slot)
    if isinstance(x, torch.fx.Proxy) and not can_trace_tail(attn, drop_path):
        return block._steps(x)
    inner, shortcut = block._enter(x)  # (B, C, H, W) each
    y = block._residual(inner)
    if isinstance(x, torch.fx.Proxy):
        return traced_tail(y, shortcut, attn=attn, act=act)
    quick = is_cpu_inference(y)
    return residual_tail(y, shortcut, bn=None, attn=attn, act=act, drop_path=drop_path, quick=quick)


def attended(plain: type[nn.Module]) -> Callable[[Class], Class]:
    """Class decorator: blocks of exactly the type `plain`, fused or not, can become this class.

    Raises:
        ValueError: if `plain` has an attended class already.
    """
    return _ATTENDED.register(plain)


def attended_class(kind: type[nn.Module]) -> type[Attended] | None:
    """The class that gives blocks of this type, fused or not, an attention layer; None if there is none."""
    return _ATTENDED.get(plain_class(kind) or kind)


def attended_types() -> tuple[type[nn.Module], ...]:
    """All types of blocks that can be given attention."""
    return tuple(_ATTENDED)
