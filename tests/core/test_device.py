"""The memory that a training step on a CPU frees stays with a command for its next step, by the allocator's counts."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from seattn.__main__ import main
from seattn.core import device
from seattn.core.errors import UserError

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
    clean = {name: value for name, value in os.environ.items() if name not in device._SETTINGS}
    run = [sys.executable, "-c", STEP, how]
    out = subprocess.run(run, env=clean, capture_output=True, text=True, check=True).stdout
    kept, mapped, heap = out.split()
    return kept, int(mapped), int(heap)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "vulkan", "opengl", "mkldnn", "hpu", "meta", "cuda:-1"])
def test_an_unknown_device_is_one_line_without_the_texts_of_torch(name, recwarn):
    with pytest.raises(UserError) as caught:
        device.torch_device(name)
    assert str(caught.value).startswith(f"device {name!r} cannot be used here; there is cpu")
    assert len(str(caught.value)) < 200
    assert len(recwarn) == 0


@glibc
def test_large_blocks_come_from_the_heap_which_keeps_them():
    _, mapped, heap = step("as it is")
    assert mapped > 110 * MB
    assert heap < 10 * MB
    kept, mapped, heap = step("keep")
    assert kept == "True"
    assert mapped < 10 * MB
    assert heap > 110 * MB


@pytest.mark.parametrize("name", device._SETTINGS)
def test_what_the_environment_says_stays(name, monkeypatch):
    monkeypatch.setenv(name, "131072")
    assert not device.keep_freed_memory()


def test_a_library_without_the_setting_is_left_alone(monkeypatch):
    for name in device._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: object())
    assert not device.keep_freed_memory()


@pytest.mark.parametrize(("name", "asked"), [("cpu", [True]), (None, [True]), ("cuda", [])])
@pytest.mark.parametrize("command", ["train", "finetune"])
def test_the_commands_ask_for_it_on_a_cpu(command, name, asked, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(device, "keep_freed_memory", lambda: calls.append(True))
    monkeypatch.setattr(device, "default_device", lambda: "cpu")
    data = ["--data-dir", str(tmp_path / "none")]
    options = [] if name is None else ["--device", name]
    (tmp_path / "x.yaml").write_text("model: resnet20_cifar\nlr: 0.1\n")
    target = str(tmp_path / "x.yaml") if command == "train" else "resnet20_cifar"
    assert main([command, target, *data, *options]) == 2  # there are no images
    assert calls == asked
