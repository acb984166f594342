"""Build the reference of the Python API: `python -m benchmarks.docs`, or `make docs`.

Each public module of seattn gets a page from its docstrings. A warning, such as a type that cannot be resolved, a name
of `__all__` that does not exist, or text in angle brackets that a browser would hide, is an error, and no page is
written.
"""

import importlib
import inspect
import pkgutil
import re
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, get_origin, get_type_hints

from pdoc import render
from pdoc.doc import Class, Module, Variable
from pdoc.doc_types import empty

import seattn
from benchmarks._command import Parser, command
from seattn.core import recipe
from seattn.core.errors import UserError
from seattn.core.files import require_writable, whole_folder
from seattn.core.recipe.table import markdown_table, recipe_keys

TEMPLATES = Path(__file__).resolve().parent
OUT = TEMPLATES.parents[1] / "build" / "docs"
_NOT_API = ("seattn.__main__", "seattn.cli", "seattn.deploy.app", "seattn.registration")


def public_modules() -> list[str]:
    """The names of seattn and its modules, without private ones and those of the command line and the app."""
    names = [seattn.__name__]
    for module in pkgutil.walk_packages(seattn.__path__, f"{seattn.__name__}."):
        private = any(part.startswith("_") for part in module.name.split("."))
        if not private and not module.name.startswith(_NOT_API):
            names.append(module.name)
    return names


def build(out: Path = OUT) -> list[Path]:
    """Write the pages, the index and the data of the search; returns their paths.

    Raises:
        UserError: for a warning; `out` then stays as it was.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pages = _pages()
    if caught:
        first = " ".join(str(caught[0].message).split())
        raise UserError(f"{len(caught)} warnings, the first: {first[:500]}")
    with whole_folder(out) as folder:
        for name, text in pages.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    return [out / name for name in pages]


def _pages() -> dict[str, str]:
    """Path below the folder -> content."""
    render.configure(
        docformat="google", show_source=False, footer_text=f"seattn {seattn.__version__}", template_directory=TEMPLATES
    )
    modules = {name: _loaded(name) for name in public_modules()}
    pages = {f"{name.replace('.', '/')}.html": render.html_module(page, modules) for name, page in modules.items()}
    return {**pages, "index.html": render.html_index(modules), "search.js": render.search_index(modules)}


def _loaded(name: str) -> Module:
    """The module for pdoc: with the names that it imports late, and the recipe's with the table of its keys."""
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        if hasattr(module, public):  # pdoc warns of the others
            setattr(module, public, getattr(module, public))
    if module is recipe and "| key |" not in (module.__doc__ or ""):
        module.__doc__ = f"{module.__doc__}\n## Keys\n\n{markdown_table(recipe_keys())}"
    page = Module(module)
    for documented in (page, *page.flattened_own_members):
        if isinstance(documented, Class):
            _show_plain_types(documented)
        elif isinstance(documented, Variable):
            _show_no_wrapper(documented)
        _check_brackets(documented.fullname, documented.docstring)
    return page


def _show_plain_types(documented: Class) -> None:
    """Let the attributes of a record show their types without pydantic's checks."""
    try:
        hints = get_type_hints(documented.obj)
    except NameError:  # a type that only type checkers import
        return
    for name, hint in hints.items():
        attribute = documented.members.get(name)
        if isinstance(attribute, Variable):
            attribute.annotation = hint


def _show_no_wrapper(variable: Variable) -> None:
    """Let a net show its docstring, not the partial function that builds it; and a checked type only its name."""
    value = variable.default_value
    if isinstance(value, partial):
        variable.docstring = inspect.getdoc(value) or ""
    if isinstance(value, partial) or get_origin(value) is Annotated:
        variable.default_value = empty


def _check_brackets(name: str, docstring: str) -> None:
    """Warn of <text> outside of code, which is a tag in HTML and would not be seen."""
    plain = re.sub("`[^`]*`", "", docstring)
    if found := re.search(r"<(?!https?:)\w[^>\n]*>", plain):
        warnings.warn(f"{name}: {found.group()} in the docstring is not in backticks", stacklevel=1)


@command("docs")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="a new folder, or an earlier reference (build/docs)")
    out: Path = parser.parse_args(arguments).out
    if out.exists() and not (out / "seattn.html").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not a reference that this command has made; give a new or empty folder")
    require_writable(out.parent)
    pages = build(out)
    print(f"{len(pages)} files: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
