"""The blocks of EXAMPLES.md: each runs by itself, in a folder with photos, and prints what its comments say."""

import ast
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

TEXT = (Path(__file__).parents[1] / "EXAMPLES.md").read_text(encoding="utf-8")
SLOW = {"albumentations", "fastai", "lightly", "lightning", "transformers"}  # imports that take long


class Block(NamedTuple):
    title: str
    code: str

    @property
    def packages(self) -> set[str]:
        imports = [node for node in ast.walk(ast.parse(self.code)) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [
            name
            for node in imports
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        ]
        return {name.partition(".")[0] for name in names} - sys.stdlib_module_names

    @property
    def printed(self) -> list[str]:
        """The comments behind calls of print."""
        return re.findall(r"^ *print\(.*\)  # (.*)$", self.code, re.M)


BLOCKS = [
    Block(section.partition("\n")[0], code)
    for section in TEXT.split("\n## ")[1:]
    for code in re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
]
PARAMETERS = [
    pytest.param(block, id=block.title, marks=[pytest.mark.slow] if block.packages & SLOW else []) for block in BLOCKS
]


@pytest.fixture
def photos(tmp_path):
    """Two classes with 30 images for training and 4 for the test each."""
    numbers = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 4)):
        for shade, name in enumerate(("dark", "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = numbers.integers(128 * shade, 128 * shade + 128, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("block", PARAMETERS)
def test_a_block_runs_and_prints_its_comments(photos, block):
    for package in sorted(block.packages):
        if find_spec(package) is None:
            pytest.skip(f"needs the package {package}, which is in the extra `examples`")
    env = os.environ | {"HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}  # no request leaves the machine
    command = [sys.executable, "-W", "ignore", "-c", block.code]
    done = subprocess.run(command, cwd=photos, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert block.printed
    assert [line for line in block.printed if line not in lines] == [], done.stdout


def test_every_print_has_its_comment_and_every_title_a_block():
    assert len({block.title for block in BLOCKS}) == len(BLOCKS) == TEXT.count("\n## ")
    assert all(block.code.count("print(") == len(block.printed) for block in BLOCKS)


def test_the_extra_names_every_package_of_the_blocks():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [
        *project["dependencies"],
        *extras["examples"],
        *extras["pretrain"],
        "numpy",
        "pil",
    ]  # torchvision needs both
    assert "seattn[cli,pretrain]" in named
    names = {re.match(r"[\w.-]+", requirement).group().lower().replace("-", "_") for requirement in named}
    assert {name.lower() for block in BLOCKS for name in block.packages} - names == set()
