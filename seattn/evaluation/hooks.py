"""Forward hooks that record a value for each call of some modules, and are always removed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")


@contextmanager
def recorded(
    modules: Mapping[str, nn.Module], record: Callable[[str, tuple[Any, ...], Any], T], *, before: bool = False
) -> Iterator[list[tuple[str, T]]]:
    """Collect (name, `record(name, inputs, output)`) for every call of the modules inside the `with` block.

    Args:
        modules: the modules by name.
        record: computes the value; inputs are the positional arguments of the call.
        before: record before the module runs, with None as the output: the module may change its input in place.
    """
    values: list[tuple[str, T]] = []

    def after_call(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        values.append((name, record(name, inputs, output)))

    def before_call(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        values.append((name, record(name, inputs, None)))

    handles = [
        module.register_forward_pre_hook(partial(before_call, name))
        if before
        else module.register_forward_hook(partial(after_call, name))
        for name, module in modules.items()
    ]
    try:
        yield values
    finally:
        for handle in handles:
            handle.remove()
