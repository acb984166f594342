"""What a training step frees on a CPU is there for the next step; counted as pages that the system had to give anew."""

import os
import platform
import subprocess
import sys

import pytest
from _colours import RECIPE, write_colours

from seattn import _allocator, train
from seattn.recipe import parse_recipe

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

STEPS = """
import resource, sys, torch
from seattn._allocator import keep_freed_memory
torch.set_num_threads(1)
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
faults = []
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    maps = [torch.ones(5_000_000) for _ in range(6)]
    del maps
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, sorted(faults)[5])
"""


def steps(how, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in _allocator._USERS}
    run = [sys.executable, "-c", STEPS, how]
    out = subprocess.run(run, env=clean | environment, capture_output=True, text=True, check=True).stdout
    kept, pages = out.split()
    return kept, int(pages)


@glibc
def test_memory_comes_from_the_system_once():
    _, without = steps("as it is")
    kept, pages = steps("keep")
    assert kept == "True"
    assert pages < 100  # of the median step: the first ones make the heap
    assert without > 10_000  # 120 MB in pages of 4 kB are 29,000


@glibc
def test_what_the_environment_says_stays():
    assert steps("keep", MALLOC_TOP_PAD_="131072")[0] == "False"


def test_a_library_without_the_setting_is_left_alone(monkeypatch):
    for name in _allocator._USERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_allocator.ctypes, "CDLL", lambda name: object())
    assert not _allocator.keep_freed_memory()


def test_training_on_a_cpu_asks_for_it(tmp_path, monkeypatch):
    data_dir = write_colours(tmp_path / "data", {"blue": 2, "red": 0}, {"train": (8, 8), "test": (4, 4)})
    asked = []
    monkeypatch.setattr(train, "keep_freed_memory", lambda: asked.append(True))
    recipe = parse_recipe({**RECIPE, "epochs": 1, "num_classes": 2, "seed": 0, "seattn": {"dataset": "colours"}})
    train.train(recipe, data_dir, tmp_path / "run", device="cpu")
    assert asked == [True]
