"""Fused classes: a module's own class with another `forward`, put on and taken off by setting `module.__class__`.

Parameters, buffers, hooks, children and names stay where they are, so state dicts, optimisers, EMA copies, pickles and
timm's methods work as before. A new fused class inherits from `Fused` and its plain class, under `@fused(<plain>)`.
"""

import types
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seattn.layers._registry import Registry

Class = TypeVar("Class", bound=type["Fused"])

_FUSED: Registry[type[nn.Module]] = Registry("{key} has a fused class already: {value}")
_PLAIN: dict[type, type[nn.Module]] = {}


class Fused:
    """`forward` calls `_run_fused`; in TorchScript and under torch.fx it calls `_plain`, the plain class's `forward`.

    The static methods take a module of the plain class or of the fused class.
    """

    _plain: Any

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self._plain(x)
        else:  # TorchScript does not compile this branch
            return _forward(self, x)

    def _run_fused(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def _why_not(module: Any) -> str | None:
        """The reason why no op can compute this module, or None if an op can."""
        raise NotImplementedError

    @staticmethod
    def _label(module: Any) -> str:
        """A name for the ops that run for the module, with its parts as they are now."""
        raise NotImplementedError

    @staticmethod
    def _covered(module: Any) -> nn.Module | None:
        """The attention that is reported with the module."""
        return module


def _forward(module: Fused, x: Tensor) -> Tensor:
    if isinstance(x, torch.fx.Proxy):  # a graph of torch.fx keeps timm's modules as nodes
        return module._plain(x)
    return module._run_fused(x)


def fused(plain: type[nn.Module]) -> Callable[[Class], Class]:
    """Class decorator: modules of exactly the type `plain` can become this class.

    Raises:
        ValueError: if `plain` has a fused class already.
    """
    register = _FUSED.register(plain)

    def register_both(cls: Class) -> Class:
        _PLAIN[cls] = plain
        cls._plain = renamed(plain.forward)
        return register(cls)

    return register_both


def fused_class(kind: type[nn.Module]) -> type[Fused] | None:
    """The fused class for modules of exactly this type, or None."""
    return _FUSED.get(kind)


def plain_class(kind: type) -> type[nn.Module] | None:
    """The class that the fused class `kind` replaces, or None if `kind` is not a fused class."""
    return _PLAIN.get(kind)


def fused_types() -> tuple[type[nn.Module], ...]:
    """All types that have a fused class."""
    return tuple(_FUSED)


def renamed(forward: Any) -> Any:
    """A copy of a plain class's `forward` named `_plain`: TorchScript compiles a method under its function's name."""
    code, scope = forward.__code__, forward.__globals__
    return types.FunctionType(code, scope, "_plain", forward.__defaults__, forward.__closure__)
