"""Registration of the nets with timm as soon as timm is imported, before or after this package.

So `import seattn` alone takes milliseconds, and the command line answers `--help` without torch and timm.
"""

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register() -> None:
    """Import `seattn.models` now if torch or timm is imported already; otherwise as soon as timm is imported."""
    if "torch" in sys.modules or "timm" in sys.modules:
        importlib.import_module("seattn.models")
    else:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Imports `seattn.models` after the outermost import of timm, or of a part of this package that imports timm.

    Not earlier: a part that imports timm is itself incomplete while timm is imported, and `seattn.models` needs it.
    """

    def __init__(self) -> None:
        self.imports = threading.local()  # depth: imports of timm and of this package that one thread is in

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module spec that the other finders find; its loader counts the depth and registers at the end."""
        if name != "timm" and not name.startswith("seattn."):
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            self.imports.depth = getattr(self.imports, "depth", 0) + 1
            try:
                load(module)
            finally:
                self.imports.depth -= 1
            if self.imports.depth == 0 and "timm" in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                importlib.import_module("seattn.models")

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec
