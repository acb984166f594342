"""The one list of attention layers: a name, a class, and an error that lists what exists.

A start at the identity: gates that are exactly 1 and can learn.
2 * sigmoid is 1 at a logit of 0, where its slope is greatest; a plain sigmoid reaches 1 only where it is saturated.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=type[nn.Module])

_ATTN: dict[str, type[nn.Module]] = {}


def register_attn(name: str) -> Callable[[Layer], Layer]:
    """Class decorator: make the layer known as `name`.

    Raises:
        ValueError: if the name is taken.
    """

    def register(layer: Layer) -> Layer:
        if name in _ATTN:
            raise ValueError(f"attention layer {name!r} exists already; registered: {', '.join(list_attn())}")
        _ATTN[name] = layer
        return layer

    return register


def list_attn() -> list[str]:
    """Names of all attention layers, sorted."""
    return sorted(_ATTN)


def get_attn(name: str) -> type[nn.Module]:
    """The layer class called `name`.

    Raises:
        ValueError: if there is none.
    """
    if name not in _ATTN:
        raise ValueError(f"unknown attention layer {name!r}; registered: {', '.join(list_attn())}")
    return _ATTN[name]


def create_attn(name: str, channels: int, **kwargs: Any) -> nn.Module:
    """Build the layer called `name` for maps of `channels` channels; further keywords go to the layer.

    Raises:
        ValueError: if there is no such layer or a value is wrong.
        TypeError: if the layer does not know a keyword.
    """
    return get_attn(name)(channels, **kwargs)


def require_two_sigmoid(gate: str) -> None:
    """Raise ValueError unless zero logits make this gate 1."""
    if gate != "two_sigmoid":
        raise ValueError(f"a start at the identity needs gate='two_sigmoid' (1 at zero, able to learn); got {gate!r}")
