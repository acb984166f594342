"""The list of attention layers: a name, a class, and the paper that model cards cite.

A start at the identity needs gates that are exactly 1 and can learn. 2 * sigmoid is 1 at a logit of 0, where its slope
is greatest; a plain sigmoid reaches 1 only where it is saturated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

Key = TypeVar("Key")
Class = TypeVar("Class", bound=type[Any])
Layer = TypeVar("Layer", bound=type[nn.Module])


class Registry(dict[Key, type[Any]]):
    """A dict of classes in which each key is registered once.

    Args:
        taken: the message of the error for a key that is registered already, with the fields `key` and `value`.
    """

    def __init__(self, taken: str) -> None:
        self._taken = taken

    def register(self, key: Key) -> Callable[[Class], Class]:
        """Class decorator: the class becomes the value of `key`.

        Raises:
            ValueError: if the key is taken.
        """
        if key in self:
            raise ValueError(self._taken.format(key=getattr(key, "__name__", repr(key)), value=self[key].__name__))

        def register(cls: Class) -> Class:
            self[key] = cls
            return cls

        return register


@dataclass(frozen=True)
class Paper:
    """The paper of an attention layer, as a model card cites it.

    Args:
        title: the layer's full name, as part of a sentence.
        authors: authors and year, "Hu et al. 2018".
        url: where the paper is.
        bibtex: the entry to cite.
    """

    title: str
    authors: str
    url: str
    bibtex: str


_ATTN: Registry[str] = Registry("attention layer {key} exists already: {value}")
_PAPERS: dict[str, Paper] = {}


def register_attn(name: str, paper: Paper | None = None) -> Callable[[Layer], Layer]:
    """Class decorator: make the layer known as `name`; a card cites `paper`.

    The layer is built as `Layer(channels, **options, device=..., dtype=...)` and maps (B, C, H, W) to (B, C, H, W). For
    `seattn.add_attention(start="identity")` it also needs a method `start_at_identity()`.

    Raises:
        ValueError: if the name is taken.
    """
    register = _ATTN.register(name)
    if paper is not None:
        _PAPERS[name] = paper
    return register


def list_attn() -> list[str]:
    """Names of all attention layers, sorted."""
    return sorted(_ATTN)


def get_attn(name: str) -> type[nn.Module]:
    """The layer class called `name`.

    Raises:
        ValueError: if no layer has this name.
    """
    if name not in _ATTN:
        raise ValueError(f"unknown attention layer {name!r}; registered: {', '.join(list_attn())}")
    return _ATTN[name]


def attn_paper(name: str) -> Paper | None:
    """The paper that the layer called `name` was registered with."""
    return _PAPERS.get(name)


def create_attn(name: str, channels: int, **kwargs: Any) -> nn.Module:
    """Build the layer called `name` for maps of `channels` channels; further keywords go to the layer.

    Raises:
        ValueError: if no layer has this name or a value is wrong.
        TypeError: if the layer does not know a keyword.
    """
    return get_attn(name)(channels, **kwargs)


def is_attn(module: nn.Module) -> bool:
    """Whether the module is a registered attention layer."""
    return isinstance(module, tuple(_ATTN.values()))


def require_two_sigmoid(gate: str) -> None:
    """Raise ValueError unless zero logits make this gate 1."""
    if gate != "two_sigmoid":
        raise ValueError(f"a start at the identity needs gate='two_sigmoid' (1 at zero, able to learn); got {gate!r}")
