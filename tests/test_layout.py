"""Where files are: imports point one way, folders stay small, no function hides a module."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "seattn").rglob("__init__.py"))
FAMILIES = ("resnet",)  # resnet_cifar.py and resnet_attn.py have timm's names


@pytest.fixture
def copied(tmp_path):
    """The sources and their contracts, in a folder of their own."""
    for package in ("seattn", "benchmarks", "kernels/seattn_kernels"):
        shutil.copytree(
            ROOT / package,
            tmp_path / package,
            ignore=_no_code,
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _no_code(folder, names):
    return [n for n in names if n == "__pycache__" or not (n.endswith(".py") or Path(folder, n).is_dir())]


def lint_imports(folder):
    pytest.importorskip("importlinter", reason="import-linter is in the extra `lint`")
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    env = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'kernels'}"}
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, env=env, capture_output=True, text=True
    )


def test_imports_point_one_way(copied):
    done = lint_imports(copied)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("seattn/core/errors.py", "from seattn.training.driver import train"),
        ("seattn/reports/page.py", "def late():\n    from seattn.hub.sums import SUMS"),
        ("kernels/seattn_kernels/_math.py", "import seattn"),
    ],
    ids=["up", "inside a function, between wings", "kernels"],
)
def test_a_forbidden_import_is_found(copied, file, line):
    path = copied / file
    path.write_text(f"{path.read_text(encoding='utf-8')}\n\n{line}\n", encoding="utf-8")
    done = lint_imports(copied)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_a_folder_has_ten_files_at_most_and_no_prefix_twice(folder):
    names = [path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")]
    assert len(names) <= 10
    prefixes = Counter(name.strip("_").split("_")[0] for name in names)
    assert [p for p, count in prefixes.items() if count > 1 and p not in FAMILIES] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_no_function_of_a_package_hides_a_module(folder):
    modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    imported = [
        (node.module, a.asname or a.name) for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names
    ]
    package = ".".join(folder.relative_to(ROOT).parts)
    assert [name for module, name in imported if module != package and name in modules] == []


def test_every_file_that_is_not_code_is_in_the_wheel():
    """zoo_configs is a link to the folder of the repository; the wheel has its files."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["seattn"]
    packaged = {path for pattern in patterns for path in (ROOT / "seattn").glob(pattern)}
    for folder, pattern in (("seattn", "**/*"), ("seattn/zoo_configs", "**/*.yaml")):
        files = [path for path in (ROOT / folder).glob(pattern) if path.is_file() and "__pycache__" not in path.parts]
        assert [path for path in files if path.suffix != ".py" and path not in packaged] == []
    assert len(packaged) > 60
    # PyPI takes files up to 100 MB; weights are not compressible.
    assert sum(path.stat().st_size for path in packaged) < 90e6


def test_the_package_alone_installs_six_packages():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.match(r"[\w-]+", requirement).group() for requirement in needed}
    assert names == {"torch", "torchvision", "timm", "triton", "huggingface_hub", "safetensors"}
