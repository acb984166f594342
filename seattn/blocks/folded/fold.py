"""A batch norm folded into the convolution before it, together with the activation after it.

A norm with fixed statistics is linear: with m, v its mean and variance, g, b its weight and bias,
    norm(conv(x, W, c)) = conv(x, W', c'),    W' = W * s,    c' = (c - m) * s + b,    s = g / sqrt(v + eps).
Jacob et al., CVPR 2018, https://arxiv.org/abs/1712.05877, section 3.2.
"""

from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter, is_
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling, is_exporting
from torch.jit import is_tracing
from torch.nn.modules.module import _has_any_global_hook

from seattn.blocks.folded.kernel import ACTS, Conv, Packed, fused_conv

WEIGHT, BIAS = "_folded_weight", "_folded_bias"  # buffers of the convolution that are not in its state dict
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_version = attrgetter("_version")


class Place(NamedTuple):
    """A module, its parent, and its name there."""

    parent: nn.Module
    name: str
    module: Any


class Fold:
    """The modules of one fold, and whether a call may use it now.

    The convolution, the norm and the activation each ask `usable`, and get the same answer: it depends on the state of
    all of them. If it is True, the convolution computes all three steps and the others return their input. If it is
    False, each of them computes what its own class computes.

    Args:
        conv, norm: an nn.Conv2d, and the batch norm, the only module that takes its output.
        others: the activation after the norm, or the parts inside of a norm with activation.
        act_name: a key of `ACTS`: the activation that the fold computes.
    """

    def __init__(self, conv: Place, norm: Place, others: Sequence[Place], act_name: str) -> None:
        self.places = (conv, norm, *others)
        self.conv: nn.Conv2d = conv.module
        self.norm: nn.BatchNorm2d = norm.module
        self.act_name = act_name
        self._packed = Packed()
        self._hooks: tuple[Any, ...] = ()
        self._sources: tuple[Tensor | None, ...] = ()  # the tensors that the folded weight was computed from
        self._versions = -1  # the sum of torch's counts of changes of these tensors
        weight = self.conv.weight
        self.conv.register_buffer(WEIGHT, torch.empty_like(weight, requires_grad=False), persistent=False)
        self.conv.register_buffer(BIAS, torch.empty_like(weight[:, 0, 0, 0], requires_grad=False), persistent=False)
        self._find_dictionaries()
        self.refresh()

    def __getstate__(self) -> dict[str, Any]:
        # A copy watches its own modules, not those of the original, and needs packed weights of its own.
        empty = dict.fromkeys(("_hooks", "_own", "_parents", "_sources", "_given"), ())
        return self.__dict__ | empty | {"_packed": Packed(), "_versions": -1}

    def usable(self) -> bool:
        """Whether the convolution may compute all steps: in evaluation, without gradients and hooks, modules in place.

        This runs for each module in each call, so it is written for speed.
        """
        if self.conv.training or self.norm.training or _has_any_global_hook():
            return False
        if torch.is_grad_enabled() and not is_exporting():
            return False
        if not self._hooks:
            self._find_dictionaries()
        return not (
            any(self._hooks)
            or any(map(dict.__contains__, self._own, repeat("forward")))
            or not all(map(is_, map(dict.get, self._parents, self._names), self._modules))
            or self.conv._parameters.get("weight") is None  # pruning and the like compute the weight
        )

    def _find_dictionaries(self) -> None:
        """Find the dictionaries that `usable` reads; a lookup by the attributes of nn.Module would take longer."""
        self._parents, self._names, self._modules = zip(
            *((parent._modules, name, module) for parent, name, module in self.places), strict=True
        )
        self._own = tuple(module.__dict__ for module in self._modules)
        self._hooks = tuple(own[name] for own in self._own for name in HOOKS)

    def __call__(self, x: Tensor, shortcut: Tensor | None = None, act_name: str | None = None) -> Tensor:
        """act(norm(conv(x)) + shortcut); `act_name` replaces the fold's own activation."""
        if not (is_compiling() or is_tracing()):
            self._refresh_if_stale()
        buffers: Any = self.conv._buffers
        act = ACTS[self.act_name if act_name is None else act_name]
        return fused_conv(self.conv, buffers[WEIGHT], buffers[BIAS], self._packed, act, x, shortcut)

    def prepared(self, x: Tensor) -> Conv:
        """The folded convolution for inputs of the shape and dtype of x; `onednn_takes(x)` must be true."""
        self._refresh_if_stale()
        weight, bias = self.conv._buffers[WEIGHT], self.conv._buffers[BIAS]
        assert weight is not None
        assert bias is not None
        return self._packed.get(self.conv, weight, bias, x)

    def refresh(self) -> None:
        """Compute the folded weight and bias from the parameters and statistics as they are now."""
        sources = weight, bias, gain, shift, mean, var, _ = self._current()
        assert weight is not None
        assert mean is not None
        assert var is not None
        wide = torch.float32 if weight.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        with torch.no_grad():
            scale = (var.to(wide) + self.norm.eps).rsqrt()  # (C)
            scale = scale if gain is None else scale * gain.to(wide)
            offset = (0.0 if bias is None else bias.to(wide)) - mean.to(wide)
            offset = offset * scale if shift is None else offset * scale + shift.to(wide)
            buffers: Any = self.conv._buffers
            buffers[WEIGHT].copy_(weight.to(wide) * scale.view(-1, 1, 1, 1))
            buffers[BIAS].copy_(offset)
        self._packed.clear()
        self._sources, self._given = sources, tuple(tensor for tensor in sources if tensor is not None)
        self._versions = sum(map(_version, self._given))

    def forget(self) -> None:
        """Compute the folded weight again at the next call."""
        self._versions = -1

    def _refresh_if_stale(self) -> None:
        if not all(map(is_, self._current(), self._sources)) or sum(map(_version, self._given)) != self._versions:
            self.refresh()

    def _current(self) -> tuple[Tensor | None, ...]:
        conv, norm, statistics = self.conv._parameters, self.norm._parameters, self.norm._buffers
        return (
            conv["weight"],
            conv["bias"],
            norm["weight"],
            norm["bias"],
            statistics["running_mean"],
            statistics["running_var"],
            # torch's batch norm updates the running statistics without counting the change; this counter shows it.
            statistics["num_batches_tracked"],
        )
