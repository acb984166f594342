"""Imports point one way: Triton stays under kernels/, and kernels know nothing of seattn."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def imported(file: Path) -> set[str]:
    """Top-level packages that the file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    ("folder", "forbidden"), [("seattn", "triton"), ("benchmarks", "triton"), ("kernels", "seattn")]
)
def test_imports_point_one_way(folder, forbidden):
    files = [file for file in (ROOT / folder).rglob("*.py") if file.parent.name != "floors"]  # which compiles kernels
    offenders = [str(file.relative_to(ROOT)) for file in files if forbidden in imported(file)]
    assert offenders == []


def test_the_kernels_are_found_and_import_triton():
    files = list((ROOT / "kernels").rglob("*.py"))
    assert any("triton" in imported(f) for f in files)
    assert not (ROOT / "kernels" / "__init__.py").exists()  # it would hide Hugging Face's package `kernels`


def test_importing_the_ops_imports_no_kernel_and_no_triton():
    # torch may import triton by itself: so triton is blocked. The dataclasses of arguments are shared.
    code = "import sys; sys.modules['triton'] = None; import seattn.ops; "
    code += "assert {m for m in sys.modules if m.startswith('seattn_kernels.')} == {'seattn_kernels.arguments'}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
