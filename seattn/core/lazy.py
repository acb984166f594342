"""Functions and modules that a package imports only when they are used for the first time."""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, places: Mapping[str, str], *, modules: Collection[str] = ()) -> Callable[[str], Any]:
    """The `__getattr__` of `package`, which imports a name at its first use.

    Args:
        places: name -> the module of the package that defines it.
        modules: names of modules of the package.
    """

    def get(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return get
