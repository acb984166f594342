"""The Python files that one op needs, of seattn/ops and of seattn_kernels, as a package that imports only itself.

The files are found through their imports, without importing them, and are copied. Only the imports between these files
are changed: they become relative, because a kernel of the Hub is loaded from any folder, under any name.
"""

import ast
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"seattn.ops": ROOT / "seattn" / "ops", "seattn_kernels": ROOT / "kernels" / "seattn_kernels"}


def gather(module: str) -> dict[str, str]:
    """The texts of `module` and of all files of `PACKAGES` that it imports, by path within the package.

    The `__init__.py` of a folder is reduced to its docstring, because files that it imports may be absent.

    Raises:
        ValueError: if a file imports what a kernel of the Hub cannot hold.
    """
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        module = waiting.pop()
        path = _within(module).with_suffix(".py").as_posix()
        if path in found:
            continue
        text = _file(module).with_suffix(".py").read_text(encoding="utf-8")
        found[path], needed = _with_relative_imports(text, path)
        waiting += needed
    folders = {folder for path in found for folder in PurePosixPath(path).parents if folder.name}
    for folder in folders:
        source = next(_file(p) for p in PACKAGES if _within(p) == PurePosixPath(folder.parts[0]))
        text = source.joinpath(*folder.parts[1:], "__init__.py").read_text(encoding="utf-8")
        found[f"{folder}/__init__.py"] = f'"""{ast.get_docstring(ast.parse(text))}"""\n'
    return dict(sorted(found.items()))


def _package(module: str) -> str | None:
    return next((package for package in PACKAGES if f"{module}.".startswith(f"{package}.")), None)


def _within(module: str) -> PurePosixPath:
    """Where the Hub's kernel has `module`, without the suffix: seattn.ops._tail.run is ops/_tail/run."""
    package = _package(module)
    assert package is not None
    inside = module.removeprefix(package).split(".")[1:]
    return PurePosixPath(package.rpartition(".")[2], *inside)


def _file(module: str) -> Path:
    """The module's source, without the suffix; the folder of a package."""
    package = _package(module)
    assert package is not None
    return PACKAGES[package].joinpath(*module.removeprefix(package).split(".")[1:])


def _with_relative_imports(text: str, path: str) -> tuple[str, list[str]]:
    """The text, and the full names of the modules that it imports of `PACKAGES`."""
    lines = text.splitlines(keepends=True)
    dots = "." * len(PurePosixPath(path).parts)  # up to the folder that holds the packages
    needed = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            _refuse([alias.name for alias in node.names], path)
        if not isinstance(node, ast.ImportFrom) or node.level or node.module is None:
            continue
        if _package(node.module) is None:
            _refuse([node.module], path)
            continue
        is_folder = _file(node.module).is_dir()
        modules = [f"{node.module}.{alias.name}" for alias in node.names] if is_folder else [node.module]
        for module in modules:
            if not _file(module).with_suffix(".py").is_file():
                _refuse([module], path)
        needed += modules
        relative = dots + ".".join(_within(node.module).parts)
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line.replace(f"from {node.module} import", f"from {relative} import", 1)
    return "".join(lines), needed


def _refuse(modules: list[str], path: str) -> None:
    for module in modules:
        if module.partition(".")[0] in ("seattn", "seattn_kernels"):
            raise ValueError(f"{path} imports {module}; a Hub kernel holds modules of {', '.join(PACKAGES)} only")
