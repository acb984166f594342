"""What a training step frees on a CPU stays with the process for the next step; as the allocator's own counts say."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from seattn.core import device
from seattn.core.recipe import parse_recipe
from seattn.training import driver
from tests.helpers.colours import RECIPE, write_colours

glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="the C library is no glibc of 2.33 or newer",
)
MB = 1_000_000

STEP = """
import ctypes, sys, torch
from seattn.core.device import keep_freed_memory

names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
counts = ctypes.CDLL(None).mallinfo2
counts.restype = Counts

torch.set_num_threads(1)
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
before = counts()
maps = [torch.ones(5_000_000) for _ in range(6)]
during = counts()
del maps
print(kept, during.hblkhd - before.hblkhd, counts().arena - before.arena)
"""


def step(how):
    """Whether the setting was made; bytes of 6 maps of 20 MB that the system gave one by one; growth of the heap."""
    clean = {name: value for name, value in os.environ.items() if name not in device._USERS}
    run = [sys.executable, "-c", STEP, how]
    out = subprocess.run(run, env=clean, capture_output=True, text=True, check=True).stdout
    kept, mapped, heap = out.split()
    return kept, int(mapped), int(heap)


@glibc
def test_large_blocks_come_from_the_heap_which_keeps_them():
    _, mapped, heap = step("as it is")
    assert mapped > 110 * MB
    assert heap < 10 * MB
    kept, mapped, heap = step("keep")
    assert kept == "True"
    assert mapped < 10 * MB
    assert heap > 110 * MB


@pytest.mark.parametrize("name", device._USERS)
def test_what_the_environment_says_stays(name, monkeypatch):
    monkeypatch.setenv(name, "131072")
    assert not device.keep_freed_memory()


def test_a_library_without_the_setting_is_left_alone(monkeypatch):
    for name in device._USERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: object())
    assert not device.keep_freed_memory()


def test_training_on_a_cpu_asks_for_it(tmp_path, monkeypatch):
    data_dir = write_colours(tmp_path / "data", {"blue": 2, "red": 0}, {"train": (8, 8), "test": (4, 4)})
    asked = []
    monkeypatch.setattr(driver, "keep_freed_memory", lambda: asked.append(True))
    recipe = parse_recipe({**RECIPE, "epochs": 1, "num_classes": 2, "seed": 0, "seattn": {"dataset": "colours"}})
    driver.train(recipe, data_dir, tmp_path / "run", device="cpu")
    assert asked == [True]
