"""The Python files that one op needs, of seattn/ops and of seattn_kernels, as a package that imports only itself.

The files are taken as they are, found by following their imports, and not imported themselves; only the imports of one
another become relative, since a kernel of the Hub is loaded from any folder, under a name made up for it.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"seattn.ops": ROOT / "seattn" / "ops", "seattn_kernels": ROOT / "kernels" / "seattn_kernels"}


def gather(module: str) -> dict[str, str]:
    """Path within the package to text, of `module` and all that it imports of `PACKAGES`.

    A package's `__init__.py` is reduced to its docstring: what it collects for its own users may not be there.

    Raises:
        ValueError: if a file imports what a kernel of the Hub cannot hold.
    """
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        package, _, name = waiting.pop().rpartition(".")
        path = f"{_folder(package)}/{name}.py"
        if path in found:
            continue
        text = (PACKAGES[package] / f"{name}.py").read_text(encoding="utf-8")
        found[path], needed = _with_relative_imports(text, path)
        waiting += needed
    for package, folder in PACKAGES.items():
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        found[f"{_folder(package)}/__init__.py"] = f'"""{docstring}"""\n'
    return dict(sorted(found.items()))


def _folder(package: str) -> str:
    return package.rpartition(".")[2]


def _with_relative_imports(text: str, path: str) -> tuple[str, list[str]]:
    """The text, and the full names of the modules that it imports of `PACKAGES`."""
    lines = text.splitlines(keepends=True)
    needed = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            _refuse([alias.name for alias in node.names], path)
        if not isinstance(node, ast.ImportFrom) or node.level or node.module is None:
            continue
        package = next((p for p in PACKAGES if f"{node.module}.".startswith(f"{p}.")), None)
        if package is None:
            _refuse([node.module], path)
            continue
        modules = [node.module] if node.module != package else [f"{package}.{alias.name}" for alias in node.names]
        for module in modules:
            if not (PACKAGES[package] / f"{module.rpartition('.')[2]}.py").is_file():
                _refuse([module], path)
        needed += modules
        relative = f"..{_folder(package)}{node.module.removeprefix(package)}"
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line.replace(f"from {node.module} import", f"from {relative} import", 1)
    return "".join(lines), needed


def _refuse(modules: list[str], path: str) -> None:
    for module in modules:
        if module.partition(".")[0] in ("seattn", "seattn_kernels"):
            raise ValueError(f"{path} imports {module}; a Hub kernel holds modules of {', '.join(PACKAGES)} only")
