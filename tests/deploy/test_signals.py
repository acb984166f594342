"""OpenVINO leaves the thread's alternate stack for signal handlers as it was."""

import ctypes
import signal
import sys

import pytest

from seattn.deploy import export_model
from seattn.deploy.formats import FORMATS
from tests.deploy.conftest import ARCH

if sys.platform == "win32":
    pytest.skip("Windows has no alternate stack", allow_module_level=True)


def alternate_stack():
    """The address, the size and the flags of this thread's stack for handlers, as bytes."""
    buffer = ctypes.create_string_buffer(64)
    assert ctypes.CDLL(None).sigaltstack(None, buffer) == 0
    return buffer.raw


@pytest.fixture
def handled():
    """The signals that Python's handler has got."""
    got = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))
    yield got
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_after_two_files_of_openvino_is_handled(exported, handled):
    """The first plugin is freed before the second."""
    file = exported("openvino")[1]
    before = alternate_stack()
    runs = [FORMATS["openvino"].load(file) for _ in range(2)]
    assert alternate_stack() == before
    del runs[0]
    del runs[0]
    assert alternate_stack() == before
    signal.raise_signal(signal.SIGUSR1)
    assert handled == [signal.SIGUSR1]


@pytest.mark.slow
def test_a_signal_after_an_8_bit_export_to_openvino_is_handled(photos, tmp_path, handled):
    before = alternate_stack()
    export_model(ARCH, "openvino", tmp_path / "net.xml", data_dir=photos, int8=True)
    assert alternate_stack() == before
    signal.raise_signal(signal.SIGUSR1)
    assert handled == [signal.SIGUSR1]
